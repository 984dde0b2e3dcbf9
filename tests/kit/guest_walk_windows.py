"""The walk of `guest_walk`, with memory windows of both types."""

from __future__ import annotations

import random
from dataclasses import dataclass

from guest_agent import Agent
from guest_walk import End, Phase, Twice, Walk

_WINDOWS = 4
_FIRST_REGION = 4
"""Of those to which windows may be bound."""

_MOST_KEPT = 20


@dataclass
class _Window:
    """One that is open."""

    side: int
    type: int
    made: int
    """After how many moves."""
    bound: int | None = None
    """To which region."""
    by: str = ""
    """Through which queue pair."""
    lost: bool = False
    """That queue pair is gone, and what becomes of a window of type 2 then is the device's."""
    changes: bool = False
    """A request about it is kept."""

    @property
    def is_usable(self) -> bool:
        return self.bound is not None and not self.lost


class WindowWalk(Walk):
    """A walk on which windows are opened, bound, used, invalidated from either end, and closed."""

    def __init__(
        self, twice: Twice, agent: Agent, chance: random.Random, *, shared: int, stops: bool
    ) -> None:
        super().__init__(twice, agent, chance, shared=shared, stops=stops)
        self._windows: dict[int, _Window] = {}
        self.operations += [
            self._open, self._bind, self._write_through, self._invalidate, self._invalidate_from_afar, self._close,
        ]  # fmt: skip

    def prepare(self) -> None:
        """Not here: what a window is bound to is the old queue pair's until that is exchanged."""

    def _switch(self) -> None:
        """Likewise."""

    def _move_one(self) -> None:
        """Likewise."""

    def goes_on(self) -> None:
        super().goes_on()
        for one in self._windows.values():
            one.changes = False

    def severed(self, end: End) -> None:
        for one in self._windows.values():
            one.lost |= one.type == 2 and one.bound is not None and one.by in (end.name, end.facing)
        super().severed(end)

    def may_end(self, region: int) -> bool:
        return super().may_end(region) and not any(
            one.bound == region or one.lost for one in self._windows.values()
        )

    @property
    def _binds(self) -> bool:
        return self.phase in (Phase.RUNS, Phase.RESTS)

    def _one(self, *, usable: bool, types: tuple[int, ...] = (1, 2)) -> tuple[int, _Window] | None:
        found = [
            (number, one)
            for number, one in self._windows.items()
            if one.type in types and not one.changes and (one.is_usable or not usable)
        ]
        return self.chance.choice(found) if found else None

    def _facing(self, window: _Window) -> tuple[End, End] | None:
        """Through whom it was bound, and who faces that one and knows of the window."""
        by = self.ends.get(window.by)
        other = self.faces(by) if by is not None else None
        if by is None or other is None or self.faces(other) is not by or window.made < other.connected_in:
            return None
        return by, other

    def _open(self) -> bool:
        number, kind = self.chance.randrange(_WINDOWS), self.chance.choice((1, 2))
        if not self.takes_verbs or number in self._windows:
            return False
        self.twice.tell_apart(f"window {number} {number % 2} {kind}")
        self._windows[number] = _Window(number % 2, kind, self.moves)
        return True

    def _bind(self) -> bool:
        chosen = self._one(usable=False)
        if not self._binds or chosen is None:
            return False
        number, window = chosen
        if window.lost or (window.bound is not None and window.type == 2):
            return False
        end = self.some(
            lambda one: (
                self.faces(one) and one.side == window.side and one.kept < _MOST_KEPT and one.kind == "rc"
            )
        )
        regions = [one for one in self.regions if one >= _FIRST_REGION and one % 2 == window.side]
        if end is None or not regions:
            return False
        region = self.chance.choice(regions)
        if self.twice.tell(f"bind {end.name} {number} {region}") == "ok":
            window.bound, window.by = region, end.name
            if self.phase is not Phase.RUNS:
                self.count_kept(end)
                window.changes = True
                self.used.add(region)
        return True

    def _write_through(self) -> bool:
        chosen = self._one(usable=True)
        if self.phase is not Phase.RUNS or chosen is None:
            return False
        number, window = chosen
        facing = self._facing(window)
        if facing is None:
            return False
        self.twice.tell(f"through {facing[1].name} {window.bound} {number}")
        return True

    def _invalidate(self) -> bool:
        chosen = self._one(usable=True, types=(2,))
        if not self._binds or chosen is None or self.chance.random() < 0.6:
            return False
        number, window = chosen
        by = self.ends.get(window.by)
        if by is None or not self.faces(by) or by.kept > _MOST_KEPT:
            return False
        self.twice.tell(f"invalidate {by.name} {number}")
        self._unbound(window, by)
        return True

    def _invalidate_from_afar(self) -> bool:
        chosen = self._one(usable=True, types=(2,))
        if not self._binds or chosen is None:
            return False
        number, window = chosen
        facing = self._facing(window)
        if facing is None or facing[1].kept > _MOST_KEPT or not self.takes_receives(facing[0], 1):
            return False
        self.twice.tell(f"send {facing[1].name} {number} away")
        self._unbound(window, facing[1])
        return True

    def _unbound(self, window: _Window, by: End) -> None:
        window.bound = None
        if self.phase is not Phase.RUNS:
            self.count_kept(by)
            window.changes = True

    def _close(self) -> bool:
        chosen = self._one(usable=False)
        if not self.takes_verbs or chosen is None or self.chance.random() < 0.7:
            return False
        self.twice.tell(f"close {chosen[0]}")
        del self._windows[chosen[0]]
        return True
