"""What would refuse a checkpoint of a process, for a person who looks before he asks for one."""

from __future__ import annotations

import asyncio
from collections import Counter
from weakref import WeakKeyDictionary

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import GuestState, Inventory
from migrrdma_runtime.base.errors import MigrRDMAError

PATIENCE_S = 2.0
"""What a process is given to answer. A stopped one does not, and the person need not wait for it."""

MOST_SHOWN = 256
"""Reasons of the processes of one container. What they say is their own choice: it must not drown the others."""


class Objections:
    """Asks processes for their reasons against a move."""

    def __init__(self) -> None:
        self._asked: WeakKeyDictionary[Guest, asyncio.Task[Inventory]] = WeakKeyDictionary()

    async def of(self, guests: list[Guest]) -> dict[Guest, tuple[str, ...] | None]:
        """The reasons of each process; None of one that does not answer, or takes part in a migration already."""
        asked = {one: self._ask(one) for one in guests if one.state is GuestState.RUNNING}
        if asked:
            await asyncio.wait(asked.values(), timeout=PATIENCE_S)
        shown: Counter[str] = Counter()
        found: dict[Guest, tuple[str, ...] | None] = {}
        for one in guests:
            reasons = _answer(asked.get(one))
            if reasons:
                room = MOST_SHOWN - shown[one.container]
                shown[one.container] += min(len(reasons), room)
                if len(reasons) > room:
                    reasons = (*reasons[:room], f"and {len(reasons) - room} more")
            found[one] = reasons
        return found

    def _ask(self, guest: Guest) -> asyncio.Task[Inventory]:
        """The question that is under way, or a new one.

        It stays when nobody waits for it any more, and ends with its answer or with the connection. With a deadline
        of its own it would end the connection of a process that is only stopped for a while.
        """
        task = self._asked.get(guest)
        if task is None or task.done():
            task = self._asked[guest] = asyncio.get_running_loop().create_task(guest.inventory(None))
            task.add_done_callback(_seen)
        return task

    async def stop(self) -> None:
        """Ask no more."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _seen(task: asyncio.Task[Inventory]) -> None:
    """Take note of its error, which is nobody's if nobody waits."""
    if not task.cancelled():
        task.exception()


def _answer(task: asyncio.Task[Inventory] | None) -> tuple[str, ...] | None:
    if task is None or not task.done() or task.cancelled():
        return None
    error = task.exception()
    if isinstance(error, MigrRDMAError):
        return (str(error),)
    return task.result().reasons
