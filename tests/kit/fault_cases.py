"""Which case strikes where: from the registry of fault points, every point with every blow that makes sense there.

A point belongs to the host whose process reaches it, and is reached in a *course*: a move as it should be, or one in
which something else goes wrong first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from migrrdma_runtime.base.fault_points import Action, Kind, Moment, name_of


class Side(Enum):
    """The host of a case, by what it is in the move."""

    SOURCE = "source"
    DESTINATION = "destination"
    PARTNER = "partner"


class Course(Enum):
    """How the move goes that comes to the point."""

    MOVE = "move"
    """Dumped and restored."""
    AFTERWARDS = "afterwards"
    """The same with ``late_commit = false``: committed after CRIU has let the processes go."""
    UNDUMPED = "undumped"
    """The low-level runtime cannot dump: undone."""
    REFUSED = "refused"
    """The source's agent fails before the dump: undone."""
    UNRESTORED = "unrestored"
    """The low-level runtime cannot restore: given back, then restored."""
    UNBUILT = "unbuilt"
    """What was restored cannot be rebuilt: killed and given back, then restored."""
    WAITING = "waiting"
    """The checkpoint waits until the partner has asked how it stands."""
    SLOW_SWITCH = "slow switch"
    """The destination is slow to switch the partner, which asks."""
    ABANDONED = "abandoned"
    """A person gives the checkpoint up: the application is nowhere afterwards."""
    ADOPTED = "adopted"
    """The source's agent is gone: the destination adopts the checkpoint and restores it; then that agent is back."""
    UNHEARD = "unheard"
    """The source's agent is away for so long that the partner gives up, and the container has gone on by itself."""


class Blow(Enum):
    """What strikes."""

    KILL = "kill"
    ERROR = "error"
    DELAY = "delay"
    CUT = "cut"
    """The host's agent can reach no other for some seconds, and no other it."""
    DISK = "disk"
    """The host's disk is full for some seconds."""
    POWER = "power"
    """The host's power fails, and it boots again."""
    CLOCK = "clock"
    """The host stands still for some seconds, and its clocks jump."""

    @property
    def kind(self) -> Kind:
        """What the process that is struck does."""
        own = {Blow.KILL: Kind.KILL, Blow.ERROR: Kind.ERROR, Blow.DELAY: Kind.DELAY}
        return own.get(self, Kind.HOLD)


@dataclass(frozen=True)
class Reached:
    """Where an action is done, and in which course."""

    side: Side
    course: Course = Course.MOVE


_SOURCE, _DESTINATION, _PARTNER = Reached(Side.SOURCE), Reached(Side.DESTINATION), Reached(Side.PARTNER)
_UNDONE_SOURCE = Reached(Side.SOURCE, Course.UNDUMPED)
_UNDONE_PARTNER = Reached(Side.PARTNER, Course.UNDUMPED)
_GIVEN_BACK = Reached(Side.DESTINATION, Course.UNRESTORED)

REACHED: dict[Action, Reached] = {
    Action.STORE_SOURCE_SUSPENDING: _SOURCE,
    Action.STORE_SOURCE_DUMPING: _SOURCE,
    Action.STORE_SOURCE_PARKED: _SOURCE,
    Action.STORE_SOURCE_CLAIMED: _SOURCE,
    Action.STORE_SOURCE_COMMITTED: _SOURCE,
    Action.STORE_SOURCE_DONE: _SOURCE,
    Action.STORE_SOURCE_ABANDONED: Reached(Side.SOURCE, Course.ABANDONED),
    Action.STORE_SOURCE_UNDONE: _UNDONE_SOURCE,
    Action.NOTE_SOURCE: _UNDONE_SOURCE,
    Action.STORE_DESTINATION_RESTORING: _DESTINATION,
    Action.STORE_DESTINATION_COMMITTING: _DESTINATION,
    Action.STORE_DESTINATION_COMMITTED: _DESTINATION,
    Action.STORE_DESTINATION_DONE: _DESTINATION,
    Action.STORE_DESTINATION_RELEASED: _GIVEN_BACK,
    Action.NOTE_DESTINATION: _DESTINATION,
    Action.STORE_PARTNER_SUSPENDED: _PARTNER,
    Action.STORE_PARTNER_PREPARED: _PARTNER,
    Action.STORE_PARTNER_SWITCHED: _PARTNER,
    Action.STORE_PARTNER_UNDONE: _UNDONE_PARTNER,
    Action.STORE_PARTNER_LOST: Reached(Side.PARTNER, Course.UNHEARD),
    Action.NOTE_PARTNER: _PARTNER,
    Action.ASK_HELLO: _SOURCE,
    Action.ASK_SUSPEND: _SOURCE,
    Action.ASK_DRAIN: _SOURCE,
    Action.ASK_UNDO: _UNDONE_SOURCE,
    Action.ASK_CLAIM: _DESTINATION,
    Action.ASK_COMMIT: _DESTINATION,
    Action.ASK_RELEASE: _GIVEN_BACK,
    Action.ASK_FINISH: _DESTINATION,
    Action.ASK_CONFIRM: _DESTINATION,
    Action.ASK_PREPARE: _DESTINATION,
    Action.ASK_RETRACT: _GIVEN_BACK,
    Action.ASK_SWITCH: _DESTINATION,
    Action.ASK_OUTCOME: Reached(Side.PARTNER, Course.WAITING),
    Action.ASK_HOLDING: Reached(Side.PARTNER, Course.SLOW_SWITCH),
    Action.ANSWER_HELLO: _PARTNER,
    Action.ANSWER_SUSPEND: _PARTNER,
    Action.ANSWER_DRAIN: _PARTNER,
    Action.ANSWER_UNDO: _UNDONE_PARTNER,
    Action.ANSWER_CLAIM: _SOURCE,
    Action.ANSWER_COMMIT: _SOURCE,
    Action.ANSWER_RELEASE: Reached(Side.SOURCE, Course.UNRESTORED),
    Action.ANSWER_FINISH: _SOURCE,
    Action.ANSWER_CONFIRM: _PARTNER,
    Action.ANSWER_PREPARE: _PARTNER,
    Action.ANSWER_RETRACT: Reached(Side.PARTNER, Course.UNRESTORED),
    Action.ANSWER_SWITCH: _PARTNER,
    Action.ANSWER_OUTCOME: Reached(Side.SOURCE, Course.WAITING),
    Action.ANSWER_HOLDING: Reached(Side.DESTINATION, Course.SLOW_SWITCH),
    Action.TELL_INVENTORY: _SOURCE,
    Action.TELL_LIST_CONTEXTS: _SOURCE,
    Action.TELL_LIST_QPS: _SOURCE,
    Action.TELL_LIST_MRS: _SOURCE,
    Action.TELL_LIST_ADDRESSES: _SOURCE,
    Action.TELL_QUIESCE: _SOURCE,
    Action.TELL_UNDO: _UNDONE_SOURCE,
    Action.TELL_PARK: _SOURCE,
    Action.TELL_REBUILD: _DESTINATION,
    Action.TELL_PREPARE: _PARTNER,
    Action.TELL_CONNECT: _DESTINATION,
    Action.TELL_KEYS: _PARTNER,
    Action.TELL_PLACES: _PARTNER,
    Action.TELL_RESUME: _DESTINATION,
    Action.CALL_GUEST: _DESTINATION,
    Action.SAY_READY: _SOURCE,
    Action.SAY_DONE: _DESTINATION,
    Action.SAY_ERROR: Reached(Side.SOURCE, Course.REFUSED),
    Action.FORGET_OUTCOME: _SOURCE,
    Action.RUNTIME_ASK_CHECKPOINT: _SOURCE,
    Action.RUNTIME_WRITE_MANIFEST: _SOURCE,
    Action.RUNTIME_DUMP: _SOURCE,
    Action.RUNTIME_SYNC_IMAGES: _SOURCE,
    Action.RUNTIME_WRITE_OUTCOME: _SOURCE,
    Action.RUNTIME_REPORT_DUMP: _SOURCE,
    Action.RUNTIME_REPORT_FAILED_DUMP: _UNDONE_SOURCE,
    Action.RUNTIME_REMOVE_MANIFEST: _UNDONE_SOURCE,
    Action.RUNTIME_ASK_RESTORE: _DESTINATION,
    Action.RUNTIME_RESTORE: _DESTINATION,
    Action.RUNTIME_REPORT_RESTORE: _DESTINATION,
    Action.RUNTIME_REPORT_FAILED_RESTORE: _GIVEN_BACK,
    Action.RUNTIME_KILL_RESTORED: Reached(Side.DESTINATION, Course.UNBUILT),
    Action.PLUGIN_ASK_WATCH: _SOURCE,
    Action.PLUGIN_CREATE_IMAGE: _SOURCE,
    Action.PLUGIN_WRITE_FILE: _SOURCE,
    Action.PLUGIN_LOAD_IMAGE: _DESTINATION,
    Action.PLUGIN_PROVE: _SOURCE,
    Action.PLUGIN_ASK_COMMIT: _DESTINATION,
    Action.GUEST_INVENTORY: _SOURCE,
    Action.GUEST_LIST_CONTEXTS: _SOURCE,
    Action.GUEST_LIST_QPS: _PARTNER,
    Action.GUEST_LIST_MRS: _SOURCE,
    Action.GUEST_LIST_ADDRESSES: _SOURCE,
    Action.GUEST_QUIESCE: _SOURCE,
    Action.GUEST_UNDO: _UNDONE_PARTNER,
    Action.GUEST_PARK: _SOURCE,
    Action.GUEST_REBUILD: _DESTINATION,
    Action.GUEST_PREPARE: _PARTNER,
    Action.GUEST_CONNECT: _DESTINATION,
    Action.GUEST_KEYS: _PARTNER,
    Action.GUEST_PLACES: _PARTNER,
    Action.GUEST_RESUME: _DESTINATION,
    Action.STORE_SOURCE_ADOPTING: Reached(Side.DESTINATION, Course.ADOPTED),
    Action.STORE_SOURCE_SUPERSEDED: Reached(Side.SOURCE, Course.ADOPTED),
    Action.ASK_PARKED: _SOURCE,
    Action.ANSWER_PARKED: _PARTNER,
    Action.ASK_ADOPT: Reached(Side.DESTINATION, Course.ADOPTED),
    Action.ANSWER_ADOPT: Reached(Side.PARTNER, Course.ADOPTED),
}


@dataclass(frozen=True)
class Case:
    """One blow at one point."""

    action: Action
    moment: Moment
    blow: Blow
    late: bool = True
    """Whether it is committed before the application's first instruction, as without another configuration."""

    @property
    def point(self) -> str:
        """The point's name."""
        return name_of(self.action, self.moment)

    @property
    def in_the_guest(self) -> bool:
        """Whether it is the application's process that is struck."""
        return self.action.value.startswith("guest.")

    @property
    def ends_an_end(self) -> bool:
        """Whether one end is killed, and so the other has nobody to talk to."""
        return self.in_the_guest and self.blow is Blow.KILL

    @property
    def reached(self) -> Reached:
        """Where and when."""
        usual = REACHED[self.action]
        return usual if self.late else Reached(usual.side, Course.AFTERWARDS)

    def __str__(self) -> str:
        """The test's name."""
        return f"{self.point}-{self.blow.value}{'' if self.late else '-afterwards'}"


def blows(action: Action, moment: Moment) -> list[Blow]:
    """The blows that make sense at a point."""
    family = action.value.partition(".")[0]
    before, durable = moment is Moment.BEFORE, family in ("store", "note")
    found = []
    # An engine removes what a runtime has restored that is killed then, and is committed.
    restored = (action, moment) in _RESTORED
    if not restored:
        found.append(Blow.KILL)
    # What the database has taken it has taken: to fail is to have changed nothing.
    # A report that is not heard for ten minutes is the runtime's own doubt, and takes as long.
    fails = before and not restored if durable or before else action not in _NEVER_TAKEN_BACK
    if fails:
        found.append(Blow.ERROR)
    found.append(Blow.DELAY)
    if family in ("store", "ask", "answer") or (before and action is Action.PLUGIN_ASK_COMMIT):
        found.append(Blow.CUT)
    if before and (durable or action in _WRITES or family == "plugin"):
        found.append(Blow.DISK)
    if REACHED[action].side is not Side.PARTNER and (family == "store" or action in _LONG):
        found.append(Blow.POWER)
    if family in ("store", "ask"):
        found.append(Blow.CLOCK)
    return found


_WRITES = {
    Action.RUNTIME_WRITE_MANIFEST,
    Action.RUNTIME_DUMP,
    Action.RUNTIME_SYNC_IMAGES,
    Action.RUNTIME_WRITE_OUTCOME,
}


_LONG = {
    Action.RUNTIME_DUMP,
    Action.RUNTIME_SYNC_IMAGES,
    Action.RUNTIME_WRITE_OUTCOME,
    Action.RUNTIME_RESTORE,
    Action.RUNTIME_REPORT_RESTORE,
    Action.PLUGIN_ASK_COMMIT,
}
_NEVER_TAKEN_BACK = {Action.RUNTIME_REPORT_RESTORE, Action.PLUGIN_ASK_COMMIT}
"""What was decided is decided."""
_RESTORED = {
    (Action.RUNTIME_RESTORE, Moment.AFTER),
    (Action.RUNTIME_REPORT_RESTORE, Moment.BEFORE),
    (Action.RUNTIME_KILL_RESTORED, Moment.BEFORE),
}


def points() -> list[tuple[Action, Moment]]:
    """Every point."""
    return [(action, moment) for action in Action for moment in Moment]


def every_case() -> Iterator[Case]:
    """Every point with every blow that makes sense there."""
    for action, moment in points():
        for blow in blows(action, moment):
            yield Case(action, moment, blow)


def one_case_for_each_point() -> list[Case]:
    """One blow for each point: of those that make sense there the one that has come least often so far."""
    often = dict.fromkeys(Blow, 0)
    weight = {Blow.POWER: 6, Blow.DELAY: 2, Blow.CLOCK: 2, Blow.CUT: 2}  # they take their time
    found = []
    for action, moment in points():
        blow = min(blows(action, moment), key=lambda one: often[one])
        often[blow] += weight.get(blow, 1)
        found.append(Case(action, moment, blow))
    return found


CRIU_DIES = [Case(Action.PLUGIN_ASK_COMMIT, moment, Blow.KILL) for moment in Moment]
"""It holds what is restored, and nothing of that has run: before it is committed, and after."""

AFTERWARDS = [
    Case(Action.STORE_DESTINATION_COMMITTING, Moment.AFTER, Blow.KILL, late=False),
    Case(Action.TELL_CONNECT, Moment.BEFORE, Blow.ERROR, late=False),
    Case(Action.RUNTIME_REPORT_RESTORE, Moment.AFTER, Blow.DELAY, late=False),
    Case(Action.GUEST_REBUILD, Moment.AFTER, Blow.ERROR, late=False),
]


def all_afterwards() -> list[Case]:
    """Of what a restore does, everything with every blow."""
    return [
        Case(one.action, one.moment, one.blow, late=False)
        for one in every_case()
        if one.reached == _DESTINATION and one.action is not Action.PLUGIN_ASK_COMMIT
    ]
