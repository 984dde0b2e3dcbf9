"""Every interleaving of a source, two hosts that adopt its checkpoint, and a source that comes back: one copy runs.

Two partners, who decide it between them, and two hosts that restore. The network and the agents are those of
test_commit_protocol.py: what was once sent may come at any time, any number of times or never, and every step works
from what is on the disk. A person errs here: nobody who is declared fenced is gone, and all of them go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from model_search import Searched, search

from migrrdma_runtime.agent.roles.states import Role, State, may_move

SOURCE, ADOPTERS = 0, (1, 2)
ARBITERS = (SOURCE, *ADOPTERS)
PARTNERS = (0, 1)
HOST_OF = (0, 1, 0)
"""Which host restores by the word of which arbiter."""
MOST_GENERATIONS = (0, 1, 2)
"""Of each arbiter: one that overtakes the other, whichever comes first."""

Claim = tuple[int, int]
"""By which arbiter, in which generation: one is enough, test_commit_protocol.py has several."""
NONE: Claim = (0, -1)


@dataclass(frozen=True)
class Arbiter:
    """Who decides, or would."""

    state: State | None = None
    generation: int = 0
    granted: bool = False


@dataclass(frozen=True)
class Host:
    """Who restores."""

    state: State | None = None
    claim: Claim = NONE


@dataclass(frozen=True)
class Partner:
    """The other end of a connection."""

    state: State = State.SUSPENDED
    believes: int = SOURCE
    generation: int = 0
    claim: Claim = NONE


@dataclass(frozen=True)
class World:
    """What is on the disks, and what was ever sent."""

    arbiters: tuple[Arbiter, ...] = (Arbiter(State.DUMPING), Arbiter(), Arbiter())
    hosts: tuple[Host, ...] = (Host(), Host())
    partners: tuple[Partner, ...] = (Partner(), Partner())
    gave_up: bool = False
    sent: frozenset[tuple[Any, ...]] = frozenset()


Rule = Callable[[World], Iterator[World]]


def with_one(ones: tuple, number: int, one: object) -> tuple:  # type: ignore[type-arg]
    return (*ones[:number], one, *ones[number + 1 :])


def send(world: World, *message: object) -> World:
    return replace(world, sent=world.sent | {message})


def arbiter(world: World, number: int, state: State, **changes: object) -> World:
    old = world.arbiters[number]
    assert old.state is None or old.state is state or may_move(Role.SOURCE, old.state, state), (old, state)
    new = replace(old, state=state, **changes)  # type: ignore[arg-type]
    return replace(world, arbiters=with_one(world.arbiters, number, new))


def host(world: World, number: int, state: State, **changes: object) -> World:
    old = world.hosts[number]
    assert changes or (old.state and may_move(Role.DESTINATION, old.state, state)), (old, state)
    new = replace(old, state=state, **changes)  # type: ignore[arg-type]
    return replace(world, hosts=with_one(world.hosts, number, new))


def partner(world: World, number: int, state: State, **changes: object) -> World:
    old = world.partners[number]
    assert old.state is state or may_move(Role.PARTNER, old.state, state), (old, state)
    new = replace(old, state=state, **changes)  # type: ignore[arg-type]
    return replace(world, partners=with_one(world.partners, number, new))


# --- who decides ------------------------------------------------------------------------------------------


def dump_ends(world: World) -> Iterator[World]:
    if world.arbiters[SOURCE].state is State.DUMPING:
        yield send(arbiter(world, SOURCE, State.PARKED), "parked")
        yield send(arbiter(world, SOURCE, State.UNDONE), "undo")


def adoption_begins(world: World) -> Iterator[World]:
    for number in ADOPTERS:
        old = world.arbiters[number]
        again = old.state in (None, State.ADOPTING, State.SUPERSEDED)
        if again and old.generation < MOST_GENERATIONS[number]:
            generation = old.generation + 1
            begun = arbiter(world, number, State.ADOPTING, generation=generation, granted=False)
            yield send(begun, "adopt", number, generation)


def adoption_is_complete(world: World) -> Iterator[World]:
    for number in ADOPTERS:
        mine = world.arbiters[number]
        asked = [("agreed", one, number, mine.generation) in world.sent for one in PARTNERS]
        if mine.state is State.ADOPTING and all(asked):
            yield arbiter(world, number, State.PARKED)


def arbiter_hears_of_its_successor(world: World) -> Iterator[World]:
    for number in ARBITERS:
        mine = world.arbiters[number]
        later = any(one[0] == "agreed" and one[3] > mine.generation for one in world.sent)
        if later and mine.state in (State.PARKED, State.CLAIMED):
            yield arbiter(world, number, State.SUPERSEDED)


def adoption_is_given_up(world: World) -> Iterator[World]:
    for number in ADOPTERS:
        if world.arbiters[number].state is State.ADOPTING:
            yield arbiter(world, number, State.SUPERSEDED)


def arbiter_grants(world: World) -> Iterator[World]:
    for number in ARBITERS:
        mine = world.arbiters[number]
        if mine.state is State.PARKED and not mine.granted:
            yield send(
                arbiter(world, number, State.CLAIMED, granted=True), "granted", number, mine.generation
            )


def arbiter_commits(world: World) -> Iterator[World]:
    for number in ARBITERS:
        mine = world.arbiters[number]
        claim = (number, mine.generation)
        if mine.state is State.CLAIMED and ("commit", *claim) in world.sent:
            yield send(arbiter(world, number, State.COMMITTED), "accepted", *claim)


def arbiter_takes_it_back(world: World) -> Iterator[World]:
    for number in ARBITERS:
        mine = world.arbiters[number]
        released = ("released", number, mine.generation) in world.sent
        if mine.state is State.CLAIMED or (mine.state is State.COMMITTED and released):
            yield arbiter(world, number, State.PARKED)


# --- who restores -----------------------------------------------------------------------------------------


def host_takes_up_a_claim(world: World) -> Iterator[World]:
    for what, *claim in world.sent:
        if what == "granted":
            number = HOST_OF[claim[0]]
            mine = world.hosts[number]
            used = ("released", *claim) in world.sent
            if mine.state in (None, State.RELEASED) and not used:
                begun = host(world, number, State.RESTORING, claim=tuple(claim))
                yield send(begun, "prepare", *claim)


def host_asks_for_the_commit(world: World) -> Iterator[World]:
    for number, mine in enumerate(world.hosts):
        prepared = all(("prepared", one, *mine.claim) in world.sent for one in PARTNERS)
        if mine.state is State.RESTORING and prepared:
            yield send(host(world, number, State.COMMITTING), "commit", *mine.claim)


def host_learns_of_the_commit(world: World) -> Iterator[World]:
    for number, mine in enumerate(world.hosts):
        if mine.state is State.COMMITTING and ("accepted", *mine.claim) in world.sent:
            yield send(host(world, number, State.COMMITTED), "switch", *mine.claim)


def host_gives_up(world: World) -> Iterator[World]:
    for number, mine in enumerate(world.hosts):
        if mine.state in (State.RESTORING, State.COMMITTING):
            yield send(host(world, number, State.RELEASED), "released", *mine.claim)


# --- the partners -----------------------------------------------------------------------------------------


def partner_agrees(world: World) -> Iterator[World]:
    for what, *more in world.sent:
        if what == "adopt" and ("parked",) in world.sent:
            by, generation = more
            for number, mine in enumerate(world.partners):
                later = generation > mine.generation
                if mine.state is State.SUSPENDED and later:  # whoever was declared fenced: a person may err
                    agreed = partner(world, number, State.SUSPENDED, believes=by, generation=generation)
                    yield send(agreed, "agreed", number, by, generation)


def partner_prepares(world: World) -> Iterator[World]:
    for what, *claim in world.sent:
        if what == "prepare":
            for number, mine in enumerate(world.partners):
                current = claim == [mine.believes, mine.generation]
                unused = ("prepared", number, *claim) not in world.sent
                if mine.state is State.SUSPENDED and current and unused:
                    prepared = partner(world, number, State.PREPARED, claim=tuple(claim))
                    yield send(prepared, "prepared", number, *claim)


def partner_hears_that_it_was_given_back(world: World) -> Iterator[World]:
    for number, mine in enumerate(world.partners):
        if mine.state is State.PREPARED and ("released", *mine.claim) in world.sent:
            yield partner(world, number, State.SUSPENDED)


def partner_switches(world: World) -> Iterator[World]:
    for number, mine in enumerate(world.partners):
        if mine.state is State.PREPARED and ("switch", *mine.claim) in world.sent:
            yield partner(world, number, State.SWITCHED)


def partner_goes_back(world: World) -> Iterator[World]:
    for number, mine in enumerate(world.partners):
        believed = ("undo",) in world.sent and mine.believes == SOURCE
        if believed and mine.state in (State.SUSPENDED, State.PREPARED):
            yield partner(world, number, State.UNDONE)


RULES: tuple[Rule, ...] = (
    dump_ends,
    adoption_begins,
    adoption_is_complete,
    arbiter_hears_of_its_successor,
    adoption_is_given_up,
    arbiter_grants,
    arbiter_commits,
    arbiter_takes_it_back,
    host_takes_up_a_claim,
    host_asks_for_the_commit,
    host_learns_of_the_commit,
    host_gives_up,
    partner_agrees,
    partner_prepares,
    partner_hears_that_it_was_given_back,
    partner_switches,
    partner_goes_back,
)


def runs(world: World) -> list[str]:
    """Where the application runs."""
    at = ["source"] if world.arbiters[SOURCE].state is State.UNDONE else []
    return at + [f"host {number}" for number, one in enumerate(world.hosts) if one.state is State.COMMITTED]


def violation(world: World) -> str:
    """Say what is wrong with a world, or nothing."""
    if len(runs(world)) > 1:
        return f"runs at {' and '.join(runs(world))}"
    for number, one in enumerate(world.hosts):
        facing = [
            other.claim == one.claim and other.state in (State.PREPARED, State.SWITCHED)
            for other in world.partners
        ]
        if one.state is State.COMMITTED and not all(facing):
            return f"host {number} runs, and a partner is not connected to it"
    return ""


def is_good_end(world: World) -> bool:
    """The application runs, and its partners are connected to it and send."""
    end = State.UNDONE if runs(world) == ["source"] else State.SWITCHED
    return bool(runs(world)) and all(one.state is end for one in world.partners)


@pytest.fixture(scope="module")
def searched() -> Searched[World]:
    return search(World(), RULES, violation)


def test_whoever_decides_it_runs_at_one_place(searched: Searched[World]) -> None:
    wrong = [(violation(world), world) for world in searched.came_from if violation(world)]
    assert not wrong, f"{wrong[0][0]}:\n{searched.story(wrong[0][1])}"
    assert len(searched.came_from) > 10_000  # the search did search


def test_it_runs_by_the_word_of_each(searched: Searched[World]) -> None:
    ends = [world for world in searched.came_from if is_good_end(world)]
    by = {one.claim[0] for world in ends for one in world.hosts if one.state is State.COMMITTED}
    assert by == set(ARBITERS)
    assert any(runs(world) == ["source"] for world in ends)
    superseded = [world for world in ends if world.arbiters[SOURCE].state is State.SUPERSEDED]
    assert superseded
    assert any(one.believes == 2 and one.generation == 2 for world in ends for one in world.partners)


# --- the search would find it ------------------------------------------------------------------------------


def partner_prepares_for_whoever_asks(world: World) -> Iterator[World]:
    for what, *claim in world.sent:
        if what == "prepare":
            for number, mine in enumerate(world.partners):
                if mine.state in (State.SUSPENDED, State.PREPARED):
                    prepared = partner(world, number, State.PREPARED, claim=tuple(claim))
                    yield send(prepared, "prepared", number, *claim)


def partner_agrees_although_it_is_prepared(world: World) -> Iterator[World]:
    for what, *more in world.sent:
        if what == "adopt" and ("parked",) in world.sent:
            by, generation = more
            for number, mine in enumerate(world.partners):
                if mine.state is State.PREPARED and generation > mine.generation:
                    agreed = partner(world, number, State.SUSPENDED, believes=by, generation=generation)
                    yield send(agreed, "agreed", number, by, generation)


def partner_agrees_before_the_dump_has_succeeded(world: World) -> Iterator[World]:
    yield from partner_agrees(send(world, "parked"))


def host_does_not_wait_for_every_partner(world: World) -> Iterator[World]:
    for number, mine in enumerate(world.hosts):
        if mine.state is State.RESTORING and ("prepared", 0, *mine.claim) in world.sent:
            yield send(host(world, number, State.COMMITTING), "commit", *mine.claim)


@pytest.mark.parametrize(
    "broken",
    [
        partner_prepares_for_whoever_asks,
        partner_agrees_although_it_is_prepared,
        partner_agrees_before_the_dump_has_succeeded,
        host_does_not_wait_for_every_partner,
    ],
)
def test_a_broken_rule_is_found(broken: Rule) -> None:
    came_from = search(World(), (broken, *RULES), violation).came_from
    assert any(violation(world) for world in came_from)
