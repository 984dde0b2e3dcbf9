"""Where processes are that have moved, by the GIDs that others know them by.

What an application has given out before a move, a GID and the number of a queue pair, names it for as long as it lives.
The agent of the host whose address the GID is, its *home*, is asked where that is now (``whereabouts.py``). So each
agent keeps, for every GID and process, that the process is here, or to which agent it has gone. It is written with the
very state that makes it so: with the commit, and where a commit is given back. Names of processes are their own words,
and hold within a container: another one may have the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from migrrdma_runtime.agent.roles.records import DestinationData, Record, SourceData
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.wire.agent_messages import Contact


@dataclass(frozen=True)
class Name:
    """A GID by which a process is known, and where that process is."""

    gid: str
    process: str
    container: str
    """Of this host: which it is in, or was when it left."""
    agent: str = ""
    """To which it has gone; empty: it is here."""
    address: str = ""
    qpns: tuple[int, ...] = ()
    """Of one that is here: the numbers that its queue pairs have had, beside those of this host's devices."""
    is_nowhere: bool = False
    """Nothing is known of it any more."""

    @property
    def key(self) -> tuple[str, str]:
        """What it is told from others by that are known by the same GID."""
        return self.process, self.container

    @property
    def is_here(self) -> bool:
        """Whether its process has come to this host, and has not left it."""
        return not (self.agent or self.is_nowhere)

    @property
    def contact(self) -> Contact:
        """Who is to be asked of it."""
        return Contact(self.agent, self.address)


class Names:
    """All of them; ``store.py`` has them on disk."""

    def __init__(self) -> None:
        self._by_gid: dict[str, dict[tuple[str, str], Name]] = {}
        self._here: dict[tuple[str, str], dict[str, Name]] = {}
        """Those that are, by process and container, by GID."""

    def known_as(self, gid: str) -> list[Name]:
        """Who is known by this GID."""
        return list(self._by_gid.get(gid, {}).values())

    def gone_to(self, agent: str, gid: str, process: str) -> Name | None:
        """The one of this name that has gone there; None also if it may be more than one."""
        found = [one for one in self.known_as(gid) if one.process == process and one.agent == agent]
        return found[0] if len(found) == 1 else None

    def of(self, container: str, process: str) -> set[str]:
        """The GIDs by which a process here is known since before it came."""
        return set(self._here.get((process, container), ()))

    def numbers_of(self, container: str, process: str) -> set[int]:
        """The numbers that its queue pairs have had before it came."""
        return {number for one in self._here.get((process, container), {}).values() for number in one.qpns}

    def take(self, names: Iterable[Name]) -> None:
        """Take over what has changed."""
        for one in names:
            _put(self._by_gid, one.gid, one.key, None if one.is_nowhere else one)
            _put(self._here, one.key, one.gid, one if one.is_here else None)

    def changed_by(self, before: State, record: Record[Any]) -> list[Name]:
        """What changes when a record gets the state that it has here."""
        data, state = record.data, record.state
        if state is before or not isinstance(data, SourceData | DestinationData):
            return []
        known = [Name(gid, process, data.container) for process, gids in data.names.items() for gid in gids]
        if isinstance(data, DestinationData):
            return self._come(data, known) if state is State.COMMITTED else []
        if state is State.COMMITTED and data.holder is not None:
            return [replace(one, agent=data.holder.name, address=data.holder.address) for one in known]
        # A commit was given back: it is nowhere, and whoever is asked knows that from the record.
        if state is State.PARKED and before is State.COMMITTED:
            return [replace(one, is_nowhere=True) for one in known]
        return []

    def _come(self, data: DestinationData, known: list[Name]) -> list[Name]:
        """They are here now, and no more where they had gone to from here, as another container."""
        left = [self.gone_to(data.source.name, one.gid, one.process) for one in known]
        here = [replace(one, qpns=tuple(data.qpns.get(one.process, ()))) for one in known]
        return [*(replace(one, is_nowhere=True) for one in left if one is not None), *here]


_K = TypeVar("_K")
_L = TypeVar("_L")


def _put(table: dict[_K, dict[_L, Name]], key: _K, part: _L, name: Name | None) -> None:
    """Have it there or not, and no empty part of the table."""
    parts = table.setdefault(key, {})
    parts.pop(part, None)
    if name is not None:
        parts[part] = name
    if not parts:
        del table[key]
