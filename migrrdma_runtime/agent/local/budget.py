"""How much of this process's memory and time the guests of one container may take, or of one user outside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import types
from collections.abc import Coroutine, Generator, Iterator
from typing import Any, TypeVar

from migrrdma_runtime.agent.local.asking import Asking
from migrrdma_runtime.agent.local.owners import whose
from migrrdma_runtime.base.allowed_rate import Bucket, Rate
from migrrdma_runtime.base.errors import MessageError

MOST_OF_AN_ANSWER = {
    "CONTEXTS": 1 << 8,
    "QPS": 1 << 16,
    "MRS": 1 << 18,
    "ADDRESSES": 1 << 17,
    "INVENTORY_IS": 1 << 10,
    "DONE": 1 << 16,
}
"""Records of one answer, whatever number of messages it takes; a process with more cannot be moved."""

MOST_OF_A_CONTAINER = 1 << 19
"""Records of all answers that are under way at one time."""

PROCESSOR = Rate(5, 0.2)
"""Seconds of the processor for one container at once, and in each second: the largest answers there may be cost less
than the first, and a fifth of one processor is what a container that does not stop can have. It waits then, alone."""

LINES = Rate(4096, 1)
"""Of the log about the connections of one owner: as many as after an agent's restart, then one in a second."""

_T = TypeVar("_T")


class Budget:
    """What the guests of one owner have taken."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.asking = Asking()
        self._taken = 0
        self._processor = Bucket(PROCESSOR, time.monotonic())
        self._lines = Bucket(LINES, time.monotonic())
        self._unsaid = 0

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """What is done inside is done for this owner; nothing may be awaited there."""
        began = time.thread_time()
        try:
            yield
        finally:
            self._processor.take(time.thread_time() - began)

    def log(self, log: logging.Logger, level: int, text: str, *arguments: object) -> None:
        """Log something about a connection of this owner, who may connect as often as it likes, or only count it."""
        if self._lines.missing(1, time.monotonic()):
            self._unsaid += 1
            return
        self._lines.take(1)
        if self._unsaid:
            log.info("not logged: %d more about connections of %s", self._unsaid, whose(self.owner))
        self._unsaid = 0
        log.log(level, text, *arguments)

    @types.coroutine
    def charged(self, work: Coroutine[Any, Any, _T]) -> Generator[Any, Any, _T]:
        """Do something that waits now and then: what it takes between its waits is this owner's."""
        answer: Any = None
        error: BaseException | None = None
        try:
            while True:
                with self.working():
                    try:
                        waits = work.send(answer) if error is None else work.throw(error)
                    except StopIteration as end:
                        result: _T = end.value
                        return result
                answer = error = None
                try:
                    answer = yield waits
                except Exception as failed:  # noqa: BLE001 (whatever it is, it is the work's)
                    error = failed
                except asyncio.CancelledError as cancelled:
                    error = cancelled
        finally:
            work.close()

    def rest(self) -> float:
        """For how many seconds nothing more is to be done for this owner."""
        return self._processor.missing(0, time.monotonic())

    def take(self, records: int) -> None:
        """Some more have come; `MessageError` if they are too many."""
        if self._taken + records > MOST_OF_A_CONTAINER:
            raise MessageError(
                f"the processes of {whose(self.owner)} answer with more than {MOST_OF_A_CONTAINER} "
                "records at a time"
            )
        self._taken += records

    def give_back(self, records: int) -> None:
        """They have been worked through, or thrown away."""
        self._taken -= records
