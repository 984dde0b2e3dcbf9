"""Looks at containers: what their processes have open and mapped, read from ``/proc`` beside the agent's loop.

How long one takes is a container's own doing: its processes may have a million files, or the kernel may not answer for
one of them (a thread that holds the lock of its mappings and waits for a disk that is gone). So they have threads of
their own, few, of which a container has one at a time: it delays nobody else, and nothing else that the agent does in
threads. What takes too long is given up by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from migrrdma_runtime.agent.local.owners import whose
from migrrdma_runtime.base.errors import GuestError

_Seen = TypeVar("_Seen")

MOST_AT_ONCE = 4

PATIENCE_S = 30.0
"""What a look is given, with its wait for a thread. A process with as many files as the kernel allows takes seconds."""


class Looks:
    """So many threads, which end with the agent whatever they wait for."""

    def __init__(self, most_at_once: int = MOST_AT_ONCE, patience: float = PATIENCE_S) -> None:
        self._places = asyncio.Semaphore(most_at_once)
        self._of: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._patience = patience

    async def at(self, owner: str, look: Callable[..., _Seen], *arguments: Any) -> _Seen:
        """What ``look`` returns, or raises; `GuestError` when it does not end. "": it is at nobody's alone.

        A look that was given up has its thread until it ends.
        """
        turn = self._of.setdefault(owner, asyncio.Lock())
        try:
            async with asyncio.timeout(self._patience):
                await turn.acquire()
                try:
                    await self._places.acquire()
                except BaseException:
                    turn.release()
                    raise
                return await self._begin(turn, look, arguments)
        except TimeoutError as error:
            which = f"those of {whose(owner)}" if owner else "this host's"
            raise GuestError(
                f"a look at processes, {which}, has not ended in {self._patience:g} s: they "
                "have very many files or mappings, or the kernel does not answer for one of them; `migrrdma "
                "inspect` shows where they are"
            ) from error

    def _begin(
        self, turn: asyncio.Lock, look: Callable[..., _Seen], arguments: tuple[Any, ...]
    ) -> asyncio.Future[_Seen]:
        loop = asyncio.get_running_loop()
        seen: asyncio.Future[_Seen] = loop.create_future()

        def ended(result: _Seen | None, error: BaseException | None) -> None:
            turn.release()
            self._places.release()
            if seen.cancelled():
                return
            if error is not None:
                seen.set_exception(error)
            else:
                seen.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, error = None, None
            try:
                result = look(*arguments)
            except BaseException as raised:  # noqa: BLE001 (raised again where it was asked for)
                error = raised
            with contextlib.suppress(RuntimeError):  # the agent has stopped
                loop.call_soon_threadsafe(ended, result, error)

        # Not an executor's, whose end Python waits for: the agent would not stop.
        try:
            threading.Thread(target=run, name="look", daemon=True).start()
        except BaseException:
            turn.release()
            self._places.release()
            raise
        return seen
