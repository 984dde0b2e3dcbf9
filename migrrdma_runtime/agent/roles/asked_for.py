"""Which queue pairs have been asked for a moment ago: somebody is about to be connected to them, or is.

One that is not connected to anybody itself yet is about to be. Were its process moved just now, who has asked would be
connected to where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

_BEING_MADE_S = 10.0
"""For both ends to be brought to RTR. Who takes longer connects to a process that has moved meanwhile, and fails."""

_MOST = 1 << 16

_PATIENCE_S = 30.0
"""For which a container is not moved because of those. Whoever asks again and again keeps nobody where he is."""

_AGAIN_S = 120.0
"""After which the patience with a container is new, if it was not moved."""

LEASE_S = 1.0
"""For how long it holds that nothing of a host has moved, as its agent said to another. A move waits it out."""


class AskedFor:
    """By GID and number, as applications name them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._when: dict[tuple[str, int], float] = {}
        self._lent_until = float("-inf")
        self._waited: dict[str, float] = {}
        """Containers, and since when they are not moved for that."""

    def note(self, gid: str, qpn: int) -> None:
        """Somebody has asked for it now."""
        self._when.pop((gid, qpn), None)
        if len(self._when) >= _MOST:
            del self._when[next(iter(self._when))]  # the oldest
        self._when[gid, qpn] = self._clock()

    def lend(self) -> None:
        """Somebody is told that nothing has moved, and may say so himself for `LEASE_S`; of what, he tells here."""
        self._lent_until = self._clock() + LEASE_S

    async def leases_end(self) -> None:
        """Wait until whoever wants to know must ask here again."""
        while (left := self._lent_until - self._clock()) > 0:
            await asyncio.sleep(left)

    def is_being_connected(self, gids: Iterable[str], qpn: int) -> bool:
        """Whether somebody has, by one of these GIDs, so that it may still be brought to face who has asked."""
        latest = max((self._when.get((gid, qpn), float("-inf")) for gid in gids), default=float("-inf"))
        return self._clock() - latest < _BEING_MADE_S

    def has_patience(self, container: str) -> bool:
        """Whether it may go on waiting with its move until those are connected."""
        now = self._clock()
        self._waited = {one: since for one, since in self._waited.items() if now - since < _AGAIN_S}
        return now - self._waited.setdefault(container, now) < _PATIENCE_S
