"""What a person is told of a migration: its state in words, whom it waits for, and the way out of it.

Every state that can last has a way out that a person can take; a state's is in this table beside its words, so that
neither is there without the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from migrrdma_runtime.agent.peers.agent_config import Deadlines
from migrrdma_runtime.agent.roles.records import AnyRecord, DestinationData, PartnerData, SourceData, to_json
from migrrdma_runtime.agent.roles.states import Role, State
from migrrdma_runtime.wire.agent_messages import Contact, Message

_UNTOLD = (
    "By itself, when {source}'s agent has heard of it. If that host is lost for good: "
    "migrrdma migration abandon --lost --role destination {id}"
)
_PENDING = (
    "By itself: each process is told again every {ask:g} s until it has done it or has ended. One that is stopped "
    "or hangs is to be continued (kill -CONT PID) or ended"
)


@dataclass(frozen=True)
class _Outlook:
    """A state in words, for the middle of a sentence, and its way out, for a line of its own."""

    words: str
    way_out: str = ""


_MOVE = _Outlook(
    "frozen, moves to another host",
    "By itself, when {only_for} has it or has failed to take it: then it goes on here. At once, as long as it is not "
    "committed there: migrrdma migration cancel {move}",
)
"""Of a source whose dump is a step of a move: its processes are here, and nobody else restores it."""

_OUTLOOKS: dict[tuple[Role, State], _Outlook] = {
    (Role.SOURCE, State.SUSPENDING): _Outlook(
        "draining",
        "By itself: what has not drained within {drain:g} s is undone. At once: `systemctl restart migrrdma-agent` "
        "on this host undoes it",
    ),
    (Role.SOURCE, State.DUMPING): _Outlook(
        "being dumped",
        "By itself, when the runtime (process {runtime}) has dumped the container or has failed. If that process "
        "hangs, end it: a container that still runs goes on",
    ),
    (Role.SOURCE, State.PARKED): _Outlook(
        "waits to be restored",
        "Restore its checkpoint, on any host that has it; or give it up, with the application in it: "
        "migrrdma migration abandon {id}",
    ),
    (Role.SOURCE, State.CLAIMED): _Outlook(
        "being restored",
        "By itself, when {holder} has committed or has given it back. If {holder} is gone, restore the checkpoint on "
        "another host: {holder} loses its claim when it cannot be asked and {doubt:g} s have passed. Or give it up, "
        "with the application in it: migrrdma migration abandon {id}",
    ),
    (Role.SOURCE, State.COMMITTED): _Outlook(
        "moved away",
        "By itself, when {holder} has told every partner. If {holder} is lost for good, with the application: "
        "migrrdma migration abandon --lost {id}",
    ),
    (Role.SOURCE, State.DONE): _Outlook("finished"),
    (Role.SOURCE, State.ABANDONED): _Outlook("given up by a person"),
    (Role.SOURCE, State.UNDONE): _Outlook("undone"),
    (Role.SOURCE, State.ADOPTING): _Outlook(
        "being adopted",
        "Run migrrdma migration adopt again, on this host, until every partner has agreed. Or leave it to another "
        "host: migrrdma migration abandon {id}",
    ),
    (Role.SOURCE, State.SUPERSEDED): _Outlook(
        "adopted by another host, which decides about it",
        "Restore the checkpoint there. When the application runs there, or is not wanted, let this host forget it: "
        "migrrdma migration abandon {id}",
    ),
    (Role.DESTINATION, State.RESTORING): _Outlook(
        "being restored",
        "By itself, when the runtime (process {runtime}) has restored the container or has failed. Or give this "
        "restore up, after which the checkpoint can be restored again: migrrdma migration abandon --role destination "
        "{id}",
    ),
    (Role.DESTINATION, State.COMMITTING): _Outlook(
        "in doubt: asking the source",
        "Make {source}'s agent reachable: it alone knows whether the commit was accepted. Or give this restore up, "
        "after which the checkpoint can be restored again: migrrdma migration abandon --role destination {id}; then "
        "remove container {container}, which never runs",
    ),
    (Role.DESTINATION, State.COMMITTED): _Outlook(
        "restored, telling the partners",
        "By itself, when each of them has heard. If a partner's host is lost for good, wait for it no more: "
        "migrrdma migration abandon --lost --role destination {id}",
    ),
    (Role.DESTINATION, State.DONE): _Outlook("finished"),
    (Role.DESTINATION, State.RELEASED): _Outlook("given back"),
    (Role.PARTNER, State.SUSPENDED): _Outlook(
        "suspended, waits for the other end",
        "By itself, when the container has been restored or goes on at {source}, or after {partner:g} s without a "
        "word. At once, giving up the connections: migrrdma migration abandon --role partner {id}",
    ),
    (Role.PARTNER, State.PREPARED): _Outlook(
        "prepared, waits for the commit",
        "By itself, when {holder} has committed or has given it back, or after {partner:g} s without a word. At "
        "once, on the new connections whether or not anybody is there: migrrdma migration abandon --role partner {id}",
    ),
    (Role.PARTNER, State.SWITCHED): _Outlook("switched over"),
    (Role.PARTNER, State.UNDONE): _Outlook("undone"),
    (Role.PARTNER, State.LOST): _Outlook("given up"),
}


def describe(record: AnyRecord, deadlines: Deadlines) -> Message:
    """What may be shown of a record and is known by now: no key, no token."""
    shown = {
        name: value
        for name, value in to_json(record.data).items()
        if name in _SHOWN and value not in (None, "", [], {})
    }
    return {
        "migration": record.id,
        "role": record.role.value,
        "state": record.state.value,
        "meaning": _outlook(record).words,
        "settled": record.is_settled,
        "created": record.created,
        "updated": record.updated,
        "peers": peers_of(record),
        "waiting_for": record.data.pending,
        "waits_for": _waits_for(record),
        "way_out": way_out(record, deadlines),
        **shown,
    }


_SHOWN = {
    "container", "source", "holder", "destination", "timeline", "blackouts", "blackout", "downtime", "reason",
    "lost", "parked", "fenced",
}  # fmt: skip


def _outlook(record: AnyRecord) -> _Outlook:
    moves = isinstance(record.data, SourceData) and record.data.move
    if moves and record.state in (State.PARKED, State.CLAIMED):
        return _MOVE
    return _OUTLOOKS[record.role, record.state]


def way_out(record: AnyRecord, deadlines: Deadlines) -> str:
    """What ends the wait by itself, and what a person can do; empty: it waits for nobody."""
    data = record.data
    templates = [_outlook(record).way_out]
    if data.pending:
        templates = [one for one in templates if not _have_all_switched(data)] + [_PENDING]
    elif record.is_final and not data.is_told:
        templates = [_UNTOLD]
    return ". ".join(filter(None, templates)).format(
        id=record.id,
        container=getattr(data, "container", "")[:12],
        source=_name_of_source(data),
        holder=_name_of_holder(record),
        only_for=getattr(data, "only_for", ""),
        move=getattr(data, "move", ""),
        runtime=data.runtime.pid if isinstance(data, SourceData | DestinationData) else 0,
        **vars(deadlines),
    )


def _have_all_switched(data: SourceData | DestinationData | PartnerData) -> bool:
    """Whether only processes are waited for where partners are as well."""
    return isinstance(data, DestinationData) and all(one.switched for one in data.partners)


def _name_of_source(data: SourceData | DestinationData | PartnerData) -> str:
    if isinstance(data, PartnerData):
        return data.decides.name
    return data.source.name if isinstance(data, DestinationData) else ""


def _name_of_holder(record: AnyRecord) -> str:
    holder: Contact | None = None
    if isinstance(record.data, SourceData):
        holder = record.data.holder
    elif isinstance(record.data, PartnerData):
        holder = record.data.destination
    return holder.name if holder else "the destination"


def _waits_for(record: AnyRecord) -> list[str]:
    """Whom it waits for now, one sentence each, without an end."""
    whom = [f"{whereabouts(record.data, name)} to hear how it ended" for name in record.data.pending]
    if not record.is_final:
        whom += _others(record)
    elif not record.data.is_told and isinstance(record.data, DestinationData):
        whom.append(f"the agent of {record.data.source.name} to hear how it ended")
    return whom


def _others(record: AnyRecord) -> list[str]:
    """Whom a state that is not final waits for, beside the processes that are still to be told."""
    data, holder = record.data, _name_of_holder(record)
    if isinstance(data, SourceData):
        by_state = {
            State.SUSPENDING: "both ends of every connection to drain",
            State.DUMPING: f"the runtime, process {data.runtime.pid}, to dump the container",
            State.PARKED: f"{data.only_for} to restore it"
            if data.move
            else "somebody to restore the checkpoint",
            State.CLAIMED: f"{holder} to restore the container and to commit",
            State.COMMITTED: f"{holder} to tell every partner",
            State.ADOPTING: "every partner to agree that this host decides",
            State.SUPERSEDED: f"a person to see that {data.successor or 'another host'} has it",
        }
        return [by_state[record.state]]
    if isinstance(data, DestinationData):
        if record.state is State.RESTORING:
            return [
                f"the runtime, process {data.runtime.pid}, to restore the container, and for its processes"
            ]
        if record.state is State.COMMITTING:
            return [f"the agent of {data.source.name} to say whether the commit was accepted"]
        return [f"partner {one.name} to switch over" for one in data.partners if not one.switched]
    if record.state is State.PREPARED:
        return [f"the agent of {holder} to say that it has committed"]
    return [f"a restore of the container, or {data.decides.name} to go on with it"]


def whereabouts(data: SourceData | DestinationData | PartnerData, name: str) -> str:
    """A process by its number and container, or by its name where no number is known."""
    container, process = data.whereabouts(name)
    who = f"process {process.pid}" if process is not None else f"the process {name}"
    return f"{who} of container {container:.12}"


def peers_of(record: AnyRecord) -> list[Message]:
    """The other agents that take part, and as what."""
    data = record.data
    if isinstance(data, SourceData):
        found = [(one, Role.PARTNER) for one in data.partners]
        found += [(data.holder, Role.DESTINATION)] if data.holder else []
        return [_peer(one.name, one.address, role) for one, role in found]
    if isinstance(data, DestinationData):
        return [
            _peer(data.source.name, data.source.address, Role.SOURCE),
            *(
                {**_peer(one.name, one.address, Role.PARTNER), "switched": one.switched}
                for one in data.partners
            ),
        ]
    found = [(data.decides, Role.SOURCE)]
    found += [(data.destination, Role.DESTINATION)] if data.destination else []
    return [_peer(one.name, one.address, role) for one, role in found]


def _peer(name: str, address: str, role: Role) -> dict[str, Any]:
    return {"name": name, "address": address, "role": role.value}
