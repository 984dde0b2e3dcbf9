"""What each role keeps of a migration, to go on after a restart of its agent; ``store.py`` keeps it on disk.

The members are what is in the database, as JSON: one with a default may be missing there.
"""

from __future__ import annotations

import json
import types
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, ClassVar, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from migrrdma_runtime.agent.local.containers import ProcessId
from migrrdma_runtime.agent.roles.states import Role, State, is_final
from migrrdma_runtime.wire.agent_messages import Contact, Message, Step


@dataclass
class SourceData:
    """Of the host that a container leaves."""

    role: ClassVar[Role] = Role.SOURCE

    container: str
    left_running: bool
    key_digest: str
    guests: list[str]
    processes: list[ProcessId]
    partners: list[Contact]
    runtime: ProcessId
    epoch: int = 0
    """Of the last claim; the first has 1."""
    attempt: str = ""
    """By which the holder of the last claim is recognised when it asks again."""
    holder: Contact | None = None
    claimed: float = 0.0
    """Seconds since the boot ``claimed_in``."""
    claimed_in: str = ""
    committed: float = 0.0
    """Seconds since 1970."""
    timeline: list[Step] = field(default_factory=list)
    reason: str = ""
    """Why it was undone."""
    pending: list[str] = field(default_factory=list)
    """Guests that are still to be told of the end."""
    boot: str = ""
    """The host's boot in which it was dumped."""
    generation: int = 0
    """Which arbiter of this checkpoint it is: the host that made it is 0, each that adopts it has a higher one."""
    fenced: str = ""
    """In whose place it decides."""
    successor: str = ""
    """Who decides in its place."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """By process: the GIDs by which others may ask for its queue pairs, those that it had earlier included."""
    qpns: dict[str, list[int]] = field(default_factory=dict)
    """By process: the numbers of those queue pairs, as its application knows them, and as the kernel or an earlier
    record bears out."""
    unproven: dict[str, list[int]] = field(default_factory=dict)
    """Likewise, by the process's word only."""
    move: str = ""
    """The move that it is a step of (``mover``): its processes stay, frozen, until another host is the authority."""
    only_for: str = ""
    """The agent that alone may restore it; empty: whoever has the checkpoint."""
    left: bool = False
    """A person has had this host forget it because another one decides."""

    def whereabouts(self, name: str) -> tuple[str, ProcessId | None]:
        """The container and the process of a guest of it."""
        return self.container, dict(zip(self.guests, self.processes, strict=False)).get(name)

    @property
    def is_told(self) -> bool:
        """Whether everybody elsewhere knows how it ended: who does not, asks."""
        return True

    def is_about(self, container: str, process: str) -> bool:
        """Whether it is about this guest: names are the guests' own words, and hold within a container only."""
        return container == self.container and process in self.guests

    def concerns(self, container: str, _process: str = "") -> bool:
        """Whether it is about this container; all of its processes take part."""
        return container == self.container


@dataclass
class SwitchedPartner:
    """A partner of a restore, and whether it has switched."""

    name: str
    address: str
    key: str
    switched: bool = False
    blackout: float = 0.0
    """Seconds for which the partner's sends were kept back."""

    @property
    def contact(self) -> Contact:
        """The agent that is asked."""
        return Contact(self.name, self.address)


@dataclass
class DestinationData:
    """Of the host that a container comes to."""

    role: ClassVar[Role] = Role.DESTINATION

    container: str
    source: Contact
    source_key: str
    attempt: str
    partners: list[SwitchedPartner]
    guests: list[str]
    runtime: ProcessId
    epoch: int = 0
    given_back: int = 0
    """The last claim that an earlier attempt here had and gave back; the source's agent may not know it yet."""
    pending: list[str] = field(default_factory=list)
    timeline: list[Step] = field(default_factory=list)
    blackouts: dict[str, float] = field(default_factory=dict)
    downtime: float | None = None
    """Seconds from the dump's begin to the restore's end."""
    lost: list[str] = field(default_factory=list)
    """Connections of which the other end is no more, for people."""
    reason: str = ""
    told: bool = False
    """The source's agent knows how it ended: that the claim is free, or that nobody will ask any more."""
    processes: list[ProcessId] = field(default_factory=list)
    """The restored ones, in the order of ``guests``."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """As in :class:`SourceData`, by the manifest."""
    qpns: dict[str, list[int]] = field(default_factory=dict)
    """Likewise."""
    criu: ProcessId | None = None
    """It holds them until the commit; None: they are committed after they have gone on."""
    let_go: bool = False
    """It was told that it may let them go: from then on they do not end with it."""

    def whereabouts(self, name: str) -> tuple[str, ProcessId | None]:
        """The container and the process of a guest of it."""
        return self.container, dict(zip(self.guests, self.processes, strict=False)).get(name)

    @property
    def is_told(self) -> bool:
        """Whether everybody elsewhere knows how it ended."""
        return self.told or not self.epoch

    def is_about(self, container: str, process: str) -> bool:
        """Whether it is about this guest: names are the guests' own words, and hold within a container only."""
        return container == self.container and process in self.guests

    def concerns(self, container: str, _process: str = "") -> bool:
        """Whether it is about this container; all of its processes take part."""
        return container == self.container

    def show_claim(self, migration: str, key: str) -> Message:
        """What the holder of a claim shows to the agent whose key it is."""
        return {"migration": migration, "key": key, "epoch": self.epoch}


@dataclass
class PartnerQP:
    """A queue pair of a partner: as its guest calls it, and as the network knows it."""

    context: int
    vqpn: int
    gid: str
    qpn: int


@dataclass
class PartnerGuest:
    """A process of this host with queue pairs that face the container."""

    container: str
    process: str
    who: str
    """For messages."""
    qps: list[PartnerQP]
    process_id: ProcessId | None = None
    hears: bool = False
    """It has sent datagrams to the container's host, and learns where the container's queue pairs for them are."""

    @property
    def only_hears(self) -> bool:
        """Whether nothing of it waits for the end: it may hear of several migrations, each when it is over."""
        return not self.qps


@dataclass
class PartnerData:
    """Of a host with other ends of the container's connections."""

    role: ClassVar[Role] = Role.PARTNER

    source: Contact
    key_digest: str
    boot: str
    """The host's boot: its processes do not outlive it."""
    suspended: float
    """Seconds since 1970."""
    guests: list[PartnerGuest]
    datagrams: list[Message] = field(default_factory=list)
    """The container's queue pairs for datagrams, as in *suspend*."""
    epoch: int = 0
    granted: int = 0
    """The last claim of which the source's agent has said whose it is."""
    granted_to: str = ""
    quiesced: float | None = None
    quiesced_monotonic: float | None = None
    drained: bool = False
    parked: bool = False
    """The source has said that the dump has succeeded: from then on another host may decide in its place."""
    generation: int = 0
    arbiter: Contact | None = None
    """Who has adopted the checkpoint; None: the source decides."""
    former: list[str] = field(default_factory=list)
    """Who has adopted it before that one."""
    destination: Contact | None = None
    places: list[Message] = field(default_factory=list)
    """Where its queue pairs for datagrams are once it is switched, for who only hears of it."""
    prepared: list[Message] = field(default_factory=list)
    """The answer to the destination's *prepare*, for when it asks again; with ``lost``."""
    lost: list[Message] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    blackout: float | None = None
    reason: str = ""

    @property
    def decides(self) -> Contact:
        """The agent whose word on the claims counts: the source's, or that of who has adopted its checkpoint."""
        return self.arbiter or self.source

    def guest(self, name: str) -> PartnerGuest:
        """One of its guests."""
        return next(one for one in self.guests if one.process == name)

    def whereabouts(self, name: str) -> tuple[str, ProcessId | None]:
        """The container and the process of a guest of it."""
        found = self.guest(name)
        return found.container, found.process_id

    @property
    def is_told(self) -> bool:
        """Whether everybody elsewhere knows how it ended: who does not, asks."""
        return True

    def is_about(self, container: str, process: str) -> bool:
        """Whether it is about this guest: names are the guests' own words, and hold within a container only."""
        return any((one.container, one.process) == (container, process) for one in self.guests)

    def concerns(self, container: str, process: str = "") -> bool:
        """Whether it is about this process, or any process of this container."""
        return any(one.container == container and process in ("", one.process) for one in self.guests)


Data = SourceData | DestinationData | PartnerData
D = TypeVar("D", SourceData, DestinationData, PartnerData)

KINDS: dict[Role, type[SourceData] | type[DestinationData] | type[PartnerData]] = {
    kind.role: kind for kind in (SourceData, DestinationData, PartnerData)
}


@dataclass
class Record(Generic[D]):
    """One migration as one role sees it."""

    id: str
    state: State
    data: D
    created: float = 0.0
    updated: float = 0.0
    row: str = ""
    """Names the row in the database: a later attempt of the same migration has another one."""

    @property
    def role(self) -> Role:
        """Whose view it is."""
        return self.data.role

    @property
    def is_final(self) -> bool:
        """Whether its state will not change any more."""
        return is_final(self.role, self.state)

    @property
    def is_settled(self) -> bool:
        """Whether nobody has to be told or asked of it any more: then it may be forgotten."""
        return self.is_final and not self.data.pending and self.data.is_told

    @property
    def is_busy(self) -> bool:
        """Whether its guests can take part in no other migration: a guest quiesces for one at a time."""
        if self.role is Role.SOURCE:
            return self.state in (State.SUSPENDING, State.DUMPING)
        return not self.is_final


SourceRecord = Record[SourceData]
DestinationRecord = Record[DestinationData]
PartnerRecord = Record[PartnerData]
AnyRecord = SourceRecord | DestinationRecord | PartnerRecord


def to_json(data: Data) -> dict[str, Any]:
    """The members, ready for JSON."""
    return asdict(data)


def to_text(data: Data) -> str:
    """The members as JSON text. Of 16,384 queue pairs :func:`to_json` alone takes six times as long as this."""
    return json.dumps(vars(data), default=vars)


def from_json(role: Role, members: dict[str, Any]) -> Any:
    """The role's data; members that this version does not know are left out."""
    return _restored(KINDS[role], members)


def _restored(kind: Any, value: Any) -> Any:
    """Make of parsed JSON what the type hint says: structures, and lists of them."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(one for one in get_args(kind) if one is not types.NoneType)
        return None if value is None else _restored(kind, value)
    if get_origin(kind) is list:
        return [_restored(get_args(kind)[0], one) for one in value]
    if is_dataclass(kind):
        if isinstance(value, list):
            return kind(*value)  # type: ignore[operator]  # as an older agent wrote pairs
        hints = get_type_hints(kind)
        known = {name: _restored(hints[name], one) for name, one in value.items() if name in hints}
        return kind(**known)  # type: ignore[operator]
    return value
