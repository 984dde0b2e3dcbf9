"""Every interleaving of the commit protocol, searched: both ends never run, and one always can.

A model of one source, two hosts that try to restore its checkpoint, and one partner. The network loses,
repeats, delays and reorders: a message once sent stays in a set, and may be taken from it at any time, any
number of times or never. An agent may stop between any two steps; what it knew and had not written is lost,
so every step here works from the durable states alone. The transitions are those of ``states.py``; a rule
that makes another one is an error of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from model_search import Searched, search

from migrrdma_runtime.agent.roles.states import Role, State, may_move

HOSTS = (1, 2)
MOST_CLAIMS = 3
"""Enough for a claim, a second one that overtakes it, and a third that comes after both."""

Message = tuple[str, int, int]
"""What, by or to which host, of which claim."""


@dataclass(frozen=True)
class World:
    """The durable states, and every message that was ever sent."""

    source: State = State.DUMPING
    frozen: bool = False
    """It is a move: the dumped processes stay, and can be let go on as long as nobody else is the authority."""
    epoch: int = 0
    holder: int = 0
    hosts: tuple[State | None, ...] = (None, None)
    claims: tuple[int, ...] = (0, 0)
    goes_on: tuple[bool, ...] = (False, False)
    """Of what has been committed there: whether it was let go, or is still held before its first instruction."""
    partner: State = State.SUSPENDED
    partner_epoch: int = 0
    partner_host: int = 0
    gave_up: bool = False
    sent: frozenset[Message] = frozenset()

    def host(self, number: int) -> State | None:
        return self.hosts[number - 1]

    def runs(self) -> list[str]:
        """Where the application runs, sending and receiving."""
        at = ["source"] if self.source is State.UNDONE else []
        return at + [f"host {one}" for one in HOSTS if self.goes_on[one - 1]]


Rule = Callable[[World], Iterator[World]]


def send(world: World, *message: object) -> World:
    return replace(world, sent=world.sent | {message})  # type: ignore[arg-type]


def move_source(world: World, state: State, **changes: object) -> World:
    assert may_move(Role.SOURCE, world.source, state), (world.source, state)
    return replace(world, source=state, **changes)  # type: ignore[arg-type]


def move_host(world: World, number: int, state: State, claim: int | None = None) -> World:
    old = world.host(number)
    # A new claim is a new record in the place of one that has ended.
    assert (claim is not None) or (old and may_move(Role.DESTINATION, old, state)), (old, state)
    hosts, claims = list(world.hosts), list(world.claims)
    hosts[number - 1] = state
    claims[number - 1] = claim if claim is not None else claims[number - 1]
    return replace(world, hosts=tuple(hosts), claims=tuple(claims))


def move_partner(world: World, state: State, **changes: object) -> World:
    assert may_move(Role.PARTNER, world.partner, state), (world.partner, state)
    return replace(world, partner=state, **changes)  # type: ignore[arg-type]


# --- the source -------------------------------------------------------------------------------------------


def dump_ends(world: World) -> Iterator[World]:
    if world.source is State.DUMPING:
        yield move_source(world, State.PARKED)
        yield send(move_source(world, State.UNDONE), "undo", 0, 0)


def source_takes_a_move_back(world: World) -> Iterator[World]:
    """It has come to nothing: what stands frozen goes on. No claim on it can be committed any more."""
    if world.frozen and world.source is State.PARKED:
        yield send(move_source(world, State.UNDONE), "undo", 0, 0)


def source_grants(world: World) -> Iterator[World]:
    if world.source is State.PARKED and world.epoch < MOST_CLAIMS:
        for number in HOSTS:
            epoch = world.epoch + 1
            granted = move_source(world, State.CLAIMED, epoch=epoch, holder=number)
            yield send(granted, "granted", number, epoch)


def source_takes_a_claim_back(world: World) -> Iterator[World]:
    """It was released, or its holder knows nothing of it, or has been silent for long: at any time."""
    if world.source is State.CLAIMED:
        yield move_source(world, State.PARKED, holder=0)


def source_takes_a_commit_back(world: World) -> Iterator[World]:
    if world.source is State.COMMITTED and ("released", world.holder, world.epoch) in world.sent:
        yield move_source(world, State.PARKED, holder=0)


def source_commits(world: World) -> Iterator[World]:
    for what, number, epoch in world.sent:
        if what == "commit" and epoch == world.epoch and number == world.holder:
            if world.source is State.CLAIMED:
                yield send(move_source(world, State.COMMITTED), "accepted", number, epoch)
            elif world.source is State.COMMITTED:
                yield send(world, "accepted", number, epoch)


# --- a destination ----------------------------------------------------------------------------------------


def host_takes_up_a_claim(world: World) -> Iterator[World]:
    for what, number, epoch in world.sent:
        free = world.host(number) in (None, State.RELEASED) and epoch > world.claims[number - 1]
        if what == "granted" and free:
            yield send(move_host(world, number, State.RESTORING, epoch), "prepare", number, epoch)


def host_asks_for_the_commit(world: World) -> Iterator[World]:
    for number in HOSTS:
        epoch = world.claims[number - 1]
        if world.host(number) is State.RESTORING and ("prepared", number, epoch) in world.sent:
            yield send(move_host(world, number, State.COMMITTING), "commit", number, epoch)


def host_learns_of_the_commit(world: World) -> Iterator[World]:
    for number in HOSTS:
        epoch = world.claims[number - 1]
        if world.host(number) is State.COMMITTING and ("accepted", number, epoch) in world.sent:
            yield move_host(world, number, State.COMMITTED)


def host_lets_go(world: World) -> Iterator[World]:
    """By CRIU's word, or after a restart of the agent, which knows of nobody who holds it."""
    for number in HOSTS:
        if world.host(number) is State.COMMITTED and not world.goes_on[number - 1]:
            yield send(let_go(world, number), "switch", number, world.claims[number - 1])


def let_go(world: World, number: int) -> World:
    goes_on = list(world.goes_on)
    goes_on[number - 1] = True
    return replace(world, goes_on=tuple(goes_on))


def host_gives_up(world: World) -> Iterator[World]:
    """A failure, a refusal, a restart, a deadline: before it has learnt of the commit. CRIU's end: also after it."""
    for number in HOSTS:
        held = world.host(number) is State.COMMITTED and not world.goes_on[number - 1]
        if held or world.host(number) in (State.RESTORING, State.COMMITTING):
            epoch = world.claims[number - 1]
            yield send(
                send(move_host(world, number, State.RELEASED), "released", number, epoch),
                "retract",
                number,
                epoch,
            )


# --- the partner ------------------------------------------------------------------------------------------


def partner_prepares(world: World) -> Iterator[World]:
    for what, number, epoch in world.sent:
        open_ = world.partner in (State.SUSPENDED, State.PREPARED) and epoch > world.partner_epoch
        if what == "prepare" and open_:
            prepared = move_partner(world, State.PREPARED, partner_epoch=epoch, partner_host=number)
            yield send(prepared, "prepared", number, epoch)


def partner_is_told_to_wait_on(world: World) -> Iterator[World]:
    for what, number, epoch in world.sent:
        if what in ("retract", "released") and epoch >= world.partner_epoch:
            if world.partner is State.PREPARED and what == "retract":
                yield move_partner(world, State.SUSPENDED, partner_epoch=epoch)
            elif world.partner is State.PREPARED and (number, epoch) == (
                world.partner_host,
                world.partner_epoch,
            ):
                yield move_partner(world, State.SUSPENDED)
            elif world.partner is State.SUSPENDED and what == "retract":
                yield replace(world, partner_epoch=epoch)


def partner_switches(world: World) -> Iterator[World]:
    # By the destination's word, sent or asked for: it is there from the moment it lets go what it has committed.
    told = ("switch", world.partner_host, world.partner_epoch) in world.sent
    if world.partner is State.PREPARED and told:
        yield move_partner(world, State.SWITCHED)


def partner_resumes(world: World) -> Iterator[World]:
    if ("undo", 0, 0) in world.sent and world.partner in (State.SUSPENDED, State.PREPARED):
        yield move_partner(world, State.UNDONE)


def partner_gives_up(world: World) -> Iterator[World]:
    if world.partner is State.SUSPENDED:
        yield move_partner(world, State.LOST, gave_up=True)
    elif world.partner is State.PREPARED:
        yield move_partner(world, State.SWITCHED, gave_up=True)


RULES: tuple[Rule, ...] = (
    dump_ends,
    source_takes_a_move_back,
    source_grants,
    source_takes_a_claim_back,
    source_takes_a_commit_back,
    source_commits,
    host_takes_up_a_claim,
    host_asks_for_the_commit,
    host_learns_of_the_commit,
    host_lets_go,
    host_gives_up,
    partner_prepares,
    partner_is_told_to_wait_on,
    partner_switches,
    partner_resumes,
    partner_gives_up,
)

# --- what must hold ----------------------------------------------------------------------------------------


def violation(world: World) -> str:
    """Say what is wrong with a world, or nothing."""
    running = world.runs()
    if len(running) > 1:
        return f"runs at {' and '.join(running)}"
    for number in HOSTS:
        there = (world.partner_host, world.partner_epoch) == (number, world.claims[number - 1])
        facing = there and world.partner in (State.PREPARED, State.SWITCHED)
        if world.goes_on[number - 1] and not facing:
            return f"host {number} runs, and its partner is {world.partner.value}, not connected to it"
    # One that has prepared for a claim that came to nothing has its old connection still, and goes back to it.
    left = (State.SWITCHED,) if world.frozen else (State.PREPARED, State.SWITCHED)
    if world.source is State.UNDONE and world.partner in left and not world.gave_up:
        return "the source runs, and its partner has left it"
    if world.partner is State.SWITCHED and not world.gave_up and not running:
        return "the partner has switched to a place where nothing runs"
    return ""


def is_good_end(world: World) -> bool:
    """The application runs, and its partner is connected to it and sends."""
    if world.source is State.UNDONE:
        return world.partner is State.UNDONE
    return bool(world.runs()) and world.partner is State.SWITCHED


@pytest.fixture(scope="module", params=[False, True], ids=["checkpoint", "move"])
def searched(request: pytest.FixtureRequest) -> Searched[World]:
    return search(World(frozen=request.param), RULES, violation)


def test_the_application_never_runs_at_two_places(searched: Searched[World]) -> None:
    came_from = searched.came_from
    wrong = [(violation(world), world) for world in came_from if violation(world)]
    assert not wrong, f"{wrong[0][0]}:\n{searched.story(wrong[0][1])}"
    assert len(came_from) > 10_000  # the search did search


def test_it_can_always_run_again_unless_somebody_gave_up(searched: Searched[World]) -> None:
    """From every world with claims left (the model has only so many) there is a way to a good end."""
    came_from = searched.came_from
    alive = searched.leading_to(world for world in came_from if is_good_end(world))
    stuck = [
        world for world in came_from if world not in alive and not world.gave_up and world.epoch < MOST_CLAIMS
    ]
    assert not stuck, searched.story(stuck[0])


def test_everything_that_the_protocol_is_for_does_happen(searched: Searched[World]) -> None:
    came_from = searched.came_from
    ends = [world for world in came_from if is_good_end(world)]
    assert {world.runs()[0] for world in ends} == {"source", "host 1", "host 2"}
    assert any(
        world.source is State.COMMITTED and world.host(world.holder) is State.RELEASED for world in came_from
    )


# --- the search would find it ------------------------------------------------------------------------------


def source_forgets_whose_turn_it_is(world: World) -> Iterator[World]:
    if world.source is State.COMMITTED:
        yield replace(world, source=State.PARKED)


def host_runs_before_it_knows(world: World) -> Iterator[World]:
    for number in HOSTS:
        if world.host(number) is State.COMMITTING:
            yield let_go(move_host(world, number, State.COMMITTED), number)


def host_gives_up_after_it_has_let_go(world: World) -> Iterator[World]:
    for number in HOSTS:
        if world.goes_on[number - 1]:
            yield send(world, "released", number, world.claims[number - 1])


def host_has_partners_switch_while_it_is_held(world: World) -> Iterator[World]:
    for number in HOSTS:
        if world.host(number) is State.COMMITTED:
            yield send(world, "switch", number, world.claims[number - 1])


def source_accepts_an_old_claim(world: World) -> Iterator[World]:
    for what, number, epoch in world.sent:
        if what == "commit" and world.source in (State.CLAIMED, State.COMMITTED):
            yield send(replace(world, source=State.COMMITTED), "accepted", number, epoch)


def prepared_partner_goes_back_by_itself(world: World) -> Iterator[World]:
    if world.partner is State.PREPARED:
        yield replace(world, partner=State.LOST, gave_up=True)


def partner_prepares_for_an_old_claim(world: World) -> Iterator[World]:
    for what, number, epoch in world.sent:
        if what == "prepare" and world.partner in (State.SUSPENDED, State.PREPARED):
            yield send(
                replace(world, partner=State.PREPARED, partner_epoch=epoch, partner_host=number),
                "prepared",
                number,
                epoch,
            )


@pytest.mark.parametrize(
    "broken",
    [
        source_forgets_whose_turn_it_is,
        host_runs_before_it_knows,
        host_gives_up_after_it_has_let_go,
        host_has_partners_switch_while_it_is_held,
        source_accepts_an_old_claim,
        prepared_partner_goes_back_by_itself,
        partner_prepares_for_an_old_claim,
    ],
)
def test_a_broken_rule_is_found(broken: Rule) -> None:
    came_from = search(World(), (broken, *RULES), violation).came_from
    assert any(violation(world) for world in came_from)


def source_lets_a_move_go_on_that_is_being_restored(world: World) -> Iterator[World]:
    if world.frozen and world.source in (State.CLAIMED, State.COMMITTED):
        yield send(replace(world, source=State.UNDONE), "undo", 0, 0)


def test_a_move_that_is_taken_back_too_late_is_found() -> None:
    came_from = search(
        World(frozen=True), (source_lets_a_move_go_on_that_is_being_restored, *RULES), violation
    ).came_from
    assert any(len(world.runs()) > 1 for world in came_from)
