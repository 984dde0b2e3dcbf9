"""A look at something of the whole host, made once for all who have asked before it began.

What is seen is as fresh as if each had looked for itself, and a hundred checkpoints at once cost two or three looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

_Seen = TypeVar("_Seen")


class SharedLook(Generic[_Seen]):
    """Calling it waits for a look that begins after the call."""

    def __init__(self, look: Callable[[], Coroutine[Any, Any, _Seen]]) -> None:
        self._look = look
        self._under_way: asyncio.Task[_Seen] | None = None
        self._next: asyncio.Task[_Seen] | None = None

    async def __call__(self) -> _Seen:
        """What is seen."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._after(self._under_way))
        # One that gives up does not take it from the others.
        return await asyncio.shield(self._next)

    async def _after(self, former: asyncio.Task[_Seen] | None) -> _Seen:
        if former is not None and not former.done():
            await asyncio.wait((former,))
        self._under_way, self._next = self._next, None
        return await self._look()
