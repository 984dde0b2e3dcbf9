"""A walk through verbs and moves, taken twice at once: by a shell that runs bare and by one that moves on the way.

Every answer, completion, content, state and event of both is compared. The model here knows only which steps may be
taken next: those whose outcome no standard leaves open, and of which nobody would have to wait for time to pass.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

from guest_agent import MOVING, PARTNER, Agent
from guest_moves import GIDS, SAME_INDEX
from guest_shell import Shell

NAMES = "ABCDEFGH"
"""Each two face each other; the first of them is on side 0."""

_DEPTH = 21
"""Of receives that are posted at most to a queue pair; it has room for some more."""

_MOST_KEPT = 20
_REGIONS = 6
_PLAIN_REGIONS = 4
"""Of those; to the others windows may be bound."""

_SRQ_LIMIT, _LAST_WQE = "15", "16"
"""Asynchronous events."""


class Phase(Enum):
    """How far the move is."""

    RUNS = auto()
    RESTS = auto()
    PARKED = auto()
    REBUILT = auto()


@dataclass
class End:
    """A queue pair, as far as it decides what may be done next."""

    name: str
    kind: str
    built: bool
    shares: bool
    state: str = "RESET"
    facing: str = ""
    connected_in: int = 0
    """After how many moves; what is older than the connection was made known to the other end by it."""
    moved: bool = False
    receives: int = 0
    awaited: int = 0
    """Receives that sends will take that are kept."""
    kept: int = 0

    @property
    def side(self) -> int:
        return NAMES.index(self.name) % 2


@dataclass
class Twice:
    """Both shells, and what they have been told."""

    bare: Shell
    moved: Shell
    told: list[str] = field(default_factory=list)
    _completed: list[dict[tuple[str, ...], list[str]]] = field(
        default_factory=lambda: [defaultdict(list), defaultdict(list)]
    )

    @property
    def _shells(self) -> tuple[Shell, Shell]:
        return self.bare, self.moved

    def tell(self, command: str) -> str:
        """Both must answer alike."""
        bare, moved = self.tell_apart(command)
        assert bare == moved, f"{command}: {bare} where nothing moves, and {moved}"
        return bare

    def tell_apart(self, command: str) -> tuple[str, str]:
        """Numbers, which devices choose."""
        self.told.append(command)
        return self.bare.tell(command), self.moved.tell(command)

    def make(self, name: str, side: int) -> None:
        self.told.append(f"make {name} {side}")
        for shell in self._shells:
            shell.make(**{name: side})

    def poll(self, side: int) -> None:
        """Keep what has completed, in the order in which it did on each queue."""
        self.told.append(f"poll {side}")
        for shell, completed in zip(self._shells, self._completed, strict=True):
            for one in shell.poll(side).split():
                name, what, status, *rest = one.split(":")
                if what == "shared":
                    # Of a shared queue any receive may be the next one's.
                    completed["shared", str(side)].append(rest[0])
                    rest = []
                completed[name, what].append(":".join((status, *rest[:1])))

    def compare_completions(self) -> None:
        bare, moved = self._completed
        for key in sorted({*bare, *moved}):
            one, other = bare[key], moved[key]
            if key[0] == "shared":
                one, other = sorted(one, key=int), sorted(other, key=int)
            assert one == other, f"completions of {key}: {one} where nothing moves, and {other}"
        bare.clear()
        moved.clear()

    def compare_asynchronous(self, side: int, live: set[str]) -> None:
        """Of queue pairs that are still there; a limit is reached when it is, which is not the same moment."""
        found = []
        for shell in self._shells:
            mine = []
            while (event := shell.tell(f"async {side}")) != "ENOENT":
                kind, *names = event.split()
                if kind == _LAST_WQE:
                    names = [one for one in names if one in live]
                if kind != _SRQ_LIMIT:
                    mine.append((kind, *names))
            found.append(sorted(mine))
        assert found[0] == found[1], f"asynchronous events: {found[0]} where nothing moves, and {found[1]}"

    def drop_events(self, side: int) -> None:
        for shell in self._shells:
            while shell.tell(f"event {side}") == "1":
                pass

    def compare_events(self, side: int) -> bool:
        """Whether one has come; to the one that moves it may have come without a completion."""
        bare, moved = self.tell_apart(f"event {side}")
        assert (bare, moved) != ("1", "0"), f"an event of side {side} was lost"
        return "1" in (bare, moved)


class Walk:
    """One walk; `step` does whatever may be done next, by chance."""

    def __init__(
        self, twice: Twice, agent: Agent, chance: random.Random, *, shared: int, stops: bool
    ) -> None:
        self.twice, self.agent, self.chance = twice, agent, chance
        self.ends: dict[str, End] = {}
        self.phase = Phase.RUNS
        self.moves = 0
        self.regions: dict[int, int] = {}
        """After how many moves each was made."""
        self.used: set[int] = set()
        """Regions that kept writes are about."""
        self._shared = shared
        """Receives that the shared queue of side 1 has room for; 0: there is none."""
        self._shared_posted = self._shared_awaited = 0
        self._stops = stops
        self._armed = [False, False]
        self.operations: list[Callable[[], bool]] = [
            *[self._receive] * 4, *[self._send] * 6, *[self._send_list] * 2, *[self._poll] * 2, *[self._write] * 3,
            *[self._connect] * 2, *[self._receive_shared] * 2, self._receive_in_error, self._fail, self._reset,
            self._destroy, self._make, self._register, self._deregister, self._arm, self._stop, self._go_on,
        ]  # fmt: skip

    def begin(self) -> None:
        if self._shared:
            self.twice.tell(f"share 1 {self._shared}")
        for name in NAMES[:2]:
            self._make_end(name)
        self._connect_pair(*(self.ends[name] for name in NAMES[:2]))

    def step(self) -> None:
        if self._step_of_the_move():
            return
        for _ in range(50):
            if self.chance.choice(self.operations)():
                return

    def end(self) -> None:
        if self.phase is Phase.REBUILT:
            self._commit()
        elif self.phase is not Phase.RUNS:
            self._undo()
        self.compare()

    def compare(self) -> None:
        for side in (0, 1):
            self.twice.poll(side)
        self.twice.compare_completions()
        for name in self.ends:
            self.twice.tell(f"state {name}")
        for region in self.regions:
            self.twice.tell(f"show {region}")
        for side in (0, 1):
            if self._armed[side] and self.twice.compare_events(side):
                self._armed[side] = False
            self.twice.compare_asynchronous(side, set(self.ends))

    # --- moves ------------------------------------------------------------------------------------------------

    def _step_of_the_move(self) -> bool:
        """Each phase may be the last one before everything is undone."""
        ways: dict[Phase, list[tuple[float, Callable[[], None]]]] = {
            Phase.RUNS: [
                (0.06, self._quiesce), (0.015, self.prepare), (0.015, self._switch), (0.02, self._move_one),
                (0.03, self.compare),
            ],
            Phase.RESTS: [(0.25, self._park), (0.08, self._undo)],
            Phase.PARKED: [(0.3, self._rebuild), (0.1, self._undo)],
            Phase.REBUILT: [(0.3, self._commit), (0.06, self._undo)],
        }  # fmt: skip
        drawn = self.chance.random()
        for part, way in ways[self.phase]:
            drawn -= part
            if drawn < 0:
                self.twice.told.append(f"# {way.__name__}")
                way()
                return True
        return False

    def prepare(self) -> None:
        """New queue pairs beside the old ones, for whoever will move; perhaps nobody does."""
        self.agent.ask("PREPARE")

    def _quiesce(self) -> None:
        self.agent.quiesce()
        self.phase = Phase.RESTS

    def _park(self) -> None:
        self.agent.ask("PARK")
        self.phase = Phase.PARKED

    def _rebuild(self, *contexts: int) -> None:
        for context in contexts or (1, 2):
            self.agent.ask("REBUILD", {"context": context, "device": f"fake{context - 1}"}, [SAME_INDEX])
        self.phase = Phase.REBUILT

    def _commit(self) -> None:
        with self._moving():
            self.agent.give_keys(1, MOVING)
            self.agent.give_keys(2, PARTNER)

    def _switch(self) -> None:
        self.prepare()
        self.agent.quiesce()
        self._commit()

    def _move_one(self) -> None:
        """The other context stays, as a partner's does."""
        moves = self.chance.choice((1, 2))
        self.agent.ask("PREPARE", {"kind": 1, "context": 3 - moves})
        self.agent.quiesce()
        self.agent.ask("PARK")
        self._rebuild(moves)
        with self._moving():
            self.agent.give_keys(moves, MOVING if moves == 1 else PARTNER)

    @contextmanager
    def _moving(self) -> Iterator[None]:
        self.agent.connect_all({1: (GIDS[0], MOVING), 2: (GIDS[1], PARTNER)})
        yield
        self.agent.resume()
        self.moves += 1
        for end in self.ends.values():
            end.moved = True
        self.goes_on()

    def _undo(self) -> None:
        self.agent.ask("UNDO")
        self.goes_on()

    def goes_on(self) -> None:
        """Nothing is kept any more."""
        self.phase = Phase.RUNS
        for end in self.ends.values():
            end.kept = end.awaited = 0
        self._shared_awaited = 0
        self.used.clear()

    # --- what may be done -------------------------------------------------------------------------------------

    @property
    def takes_verbs(self) -> bool:
        """Others wait from the park on, and their callers with them."""
        return self.phase in (Phase.RUNS, Phase.RESTS)

    def faces(self, end: End) -> End | None:
        """Its other end, if what is sent arrives there."""
        other = self.ends.get(end.facing)
        if end.state != "RTS" or other is None or other.facing != end.name:
            return None
        return other if other.state in ("RTR", "RTS", "SQD") else None

    def some(self, holds: Callable[[End], object]) -> End | None:
        found = [one for one in self.ends.values() if holds(one)]
        return self.chance.choice(found) if found else None

    def takes_receives(self, end: End, count: int) -> bool:
        """Whether there are as many for who sends to it; they are counted as taken."""
        waits = self.phase is not Phase.RUNS
        if end.shares:
            if self._shared_posted < count:
                return False
            self._shared_posted -= count
            self._shared_awaited += count * waits
            return True
        if end.receives < count:
            return False
        end.receives -= count
        end.awaited += count * waits
        return True

    def count_kept(self, end: End, count: int = 1) -> None:
        end.kept += count * (self.phase is not Phase.RUNS)

    def _is_busy(self, end: End) -> bool:
        """Whether kept sends would be flushed or not as time happens to pass."""
        return bool(end.kept) or any(one.kept and one.facing == end.name for one in self.ends.values())

    def severed(self, end: End) -> None:
        """Nobody is to wait for an answer from who is gone: the other end fails at once."""
        other = self.ends.get(end.facing)
        if other is not None and other.facing == end.name and other.state not in ("RESET", "ERR"):
            self.twice.tell(f"err {other.name}")
            other.state, other.receives = "ERR", 0

    def _poll_all(self) -> None:
        for side in (0, 1):
            self.twice.poll(side)

    # --- queue pairs ------------------------------------------------------------------------------------------

    def _make(self) -> bool:
        free = [name for name in NAMES if name not in self.ends]
        if not self.takes_verbs or not free:
            return False
        self._make_end(self.chance.choice(free))
        return True

    def _make_end(self, name: str) -> None:
        other = self.ends.get(NAMES[NAMES.index(name) ^ 1])
        kind = other.kind if other is not None else self.chance.choice(("rc", "rc", "rc", "uc"))
        built = self.chance.random() < 0.4
        self.twice.tell(f"type {kind}")
        self.twice.tell(f"built {built:d}")
        end = End(name, kind, built, shares=False)
        end.shares = bool(self._shared) and end.side == 1
        self.twice.make(name, end.side)
        self.ends[name] = end

    def _connect(self) -> bool:
        first = 2 * self.chance.randrange(len(NAMES) // 2)
        pair = [self.ends.get(name) for name in NAMES[first : first + 2]]
        self.chance.shuffle(pair)
        if not self.takes_verbs or any(one is None or one.state != "RESET" for one in pair):
            return False
        one, other = (each for each in pair if each is not None)
        if one.moved or other.moved:
            # They would tell each other numbers that are not theirs any more: late comers' business.
            for each in (one, other):
                self._end_of(each)
            return True
        self._connect_pair(one, other)
        return True

    def _connect_pair(self, one: End, other: End) -> None:
        for each in (one, other):
            self.twice.tell(f"init {each.name}")
        for each, peer in ((one, other), (other, one)):
            self.twice.tell(f"rtr {each.name} {peer.name}")
            self.twice.tell(f"rts {each.name}")
            each.state, each.facing, each.connected_in = "RTS", peer.name, self.moves

    def _end_of(self, end: End) -> None:
        self.severed(end)
        self._poll_all()
        self.twice.tell(f"destroy {end.name}")
        del self.ends[end.name]

    def _destroy(self) -> bool:
        end = self.some(lambda one: not self._is_busy(one))
        if not self.takes_verbs or end is None or self.chance.random() < 0.5:
            return False
        self._end_of(end)
        return True

    def _fail(self) -> bool:
        end = self.some(lambda one: one.state in ("RTR", "RTS") and not self._is_busy(one))
        if not self.takes_verbs or end is None or self.chance.random() < 0.7:
            return False
        self.severed(end)
        self.twice.tell(f"err {end.name}")
        end.state, end.receives = "ERR", 0
        return True

    def _reset(self) -> bool:
        end = self.some(lambda one: one.state != "RESET" and not self._is_busy(one))
        if not self.takes_verbs or end is None or (end.state != "ERR" and self.chance.random() < 0.7):
            return False
        self.severed(end)
        self._poll_all()  # what is not polled stays, or goes with the reset: as the device is
        self.twice.tell(f"reset {end.name}")
        end.state, end.facing, end.receives = "RESET", "", 0
        return True

    def _stop(self) -> bool:
        end = self.some(lambda one: self.faces(one) and not self._is_busy(one))
        if not self._stops or not self.takes_verbs or end is None:
            return False
        self.twice.tell(f"sqd {end.name}")
        end.state = "SQD"
        return True

    def _go_on(self) -> bool:
        end = self.some(lambda one: one.state == "SQD")
        if not self.takes_verbs or end is None:
            return False
        self.twice.tell(f"on {end.name}")
        end.state = "RTS"
        return True

    # --- messages ---------------------------------------------------------------------------------------------

    def _receive(self) -> bool:
        states = ("RTR", "RTS", "SQD")
        end = self.some(
            lambda one: not one.shares and one.state in states and one.receives + one.awaited < _DEPTH
        )
        if end is None:
            return False
        count = self.chance.randint(1, 3)
        self.twice.tell(f"recv {end.name} {count}")
        end.receives += count
        return True

    def _receive_in_error(self) -> bool:
        end = self.some(lambda one: not one.shares and one.state == "ERR")
        if not self.takes_verbs or end is None:
            return False
        self.twice.tell(f"recv {end.name} 2")
        return True

    def _receive_shared(self) -> bool:
        if self._shared_posted + self._shared_awaited > self._shared - 4:
            return False
        count = self.chance.randint(1, 3)
        self.twice.tell(f"shared 1 {count} {self.chance.randint(1, count)}")
        self._shared_posted += count
        return True

    def _send(self, word: str = "send") -> bool:
        end = self.some(self.faces)
        if end is None:
            return self._send_in_error(word)
        other, count = self.faces(end), self.chance.randint(1, 4)
        if end.kept + count > _MOST_KEPT or other is None or not self.takes_receives(other, count):
            return False
        self.twice.tell(f"{word} {end.name} {count}")
        self.count_kept(end, count)
        return True

    def _send_list(self) -> bool:
        return self._send("sends")

    def _send_in_error(self, word: str) -> bool:
        end = self.some(lambda one: one.state == "ERR")
        if not self.takes_verbs or end is None:
            return False
        self.twice.tell(f"{word} {end.name} 2")
        return True

    def _write(self) -> bool:
        end = self.some(lambda one: self.faces(one) and one.kept < _MOST_KEPT)
        if end is None:
            return False
        known = [
            one for one, made in self.regions.items() if one % 2 != end.side and made >= end.connected_in
        ]
        if not known:
            return False
        region = self.chance.choice(known)
        self.twice.tell(f"write {end.name} {region}")
        if self.phase is not Phase.RUNS:
            self.count_kept(end)
            self.used.add(region)
        return True

    # --- regions and queues -----------------------------------------------------------------------------------

    def _register(self) -> bool:
        region = self.chance.randrange(_REGIONS)
        if not self.takes_verbs or region in self.regions:
            return False
        windows = "" if region < _PLAIN_REGIONS else " windows"
        self.twice.tell_apart(f"region {region} {region % 2} 0{windows}")
        self.regions[region] = self.moves
        return True

    def may_end(self, region: int) -> bool:
        return region not in self.used

    def _deregister(self) -> bool:
        unused = [one for one in self.regions if self.may_end(one)]
        if not self.takes_verbs or not unused or self.chance.random() < 0.6:
            return False
        region = self.chance.choice(unused)
        self.twice.tell(f"free {region}")
        del self.regions[region]
        return True

    def _poll(self) -> bool:
        self.twice.poll(self.chance.randrange(2))
        return True

    def _arm(self) -> bool:
        side = self.chance.randrange(2)
        if self._armed[side] or self.phase is not Phase.RUNS:
            return False
        self.compare()
        self.twice.drop_events(side)
        self.twice.tell(f"arm {side}")
        self._armed[side] = True
        return True
