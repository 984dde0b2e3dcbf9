"""How much the guests of one container may ask their agent, or of one user outside.

Their agent asks others then, which count what it asks and not for whom. Without a limit here, one container could use
up what those give to all of the host.
"""

from __future__ import annotations

import asyncio
import time

from migrrdma_runtime.base.allowed_rate import Bucket, Rate
from migrrdma_runtime.base.errors import MessageError

AT_ONCE = 16
"""Questions that are looked into; the others wait."""

MOST_AWAITED = 4096
"""Whose answers have not been sent yet: each is a thread that waits."""

RATE = Rate(2000, 200)
"""For which others are asked: less than half of what one agent may ask another."""

LINES = Rate(100, 0.1)
"""Of the log about these questions: as many as there are when a host is lost, then one in ten seconds."""


class Asking:
    """What the guests of one owner ask."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(AT_ONCE)
        self._awaited = 0
        self._left = Bucket(RATE, time.monotonic())
        self._lines = Bucket(LINES, time.monotonic())

    def began(self) -> None:
        """One more question has come; `MessageError` if they are too many."""
        if self._awaited >= MOST_AWAITED:
            raise MessageError(f"more than {MOST_AWAITED} questions at once")
        self._awaited += 1

    def ended(self) -> None:
        """One less is waited for."""
        self._awaited -= 1

    def may_be_logged(self) -> bool:
        """Whether something about a question may be logged, which is counted then. Who asks hears it anyway."""
        if self._lines.missing(1, time.monotonic()):
            return False
        self._lines.take(1)
        return True

    def may_ask(self) -> bool:
        """Whether another agent may be asked now, which is counted then."""
        if self._left.missing(1, time.monotonic()):
            return False
        self._left.take(1)
        return True

    def has_asked(self, others: int) -> None:
        """So many more were asked because of one question: those that one had named who was asked before."""
        self._left.take(others)

    async def until_it_may(self) -> None:
        """Wait until another agent may be asked."""
        while not self.may_ask():
            await asyncio.sleep(self._left.missing(1, time.monotonic()))
