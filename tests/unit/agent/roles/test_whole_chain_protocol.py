"""Every interleaving of the whole chain, searched: runtime, guest, records, engine, and what runs before the commit.

`test_commit_protocol.py` takes a dump and a restore for one step each, and the agents for the only actors. Here is one
host that dumps and one that restores, with what an application depends on besides: the OCI runtime, which may be killed
anywhere; the engine, which deletes the images of a checkpoint that "failed"; the guest, which lives, is parked, or has
ended; the agent's record and the file by which the runtime says that a dump succeeded; a disk that may be full at any
write; a power failure of the source; and whether an instruction of the restored application has run.

An agent that is started again knows what is on its disk and what it sees, so every step works from these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

import pytest
from model_search import Searched, search

from migrrdma_runtime.agent.roles.states import Role, State, may_move


class Guest(Enum):
    """The application's processes on the source."""

    RUNS = "runs"
    PARKED = "parked"
    ENDED = "ended"
    """Dumped and killed by CRIU, as the last thing that it does."""
    LOST = "lost"
    """With its host's power, before it was in an image that is known to survive that."""


class Images(Enum):
    """CRIU's images of it."""

    NONE = "none"
    WRITTEN = "written"
    SYNCED = "synced"
    DELETED = "deleted"


class Runtime(Enum):
    """One call of the OCI runtime."""

    NOT_CALLED = "not called"
    WORKS = "works"
    HAS_DONE = "has done"
    """runc has returned, and nobody knows yet."""
    SAID_SUCCESS = "said success"
    SAID_FAILURE = "said failure"
    KILLED = "killed"


class Copy(Enum):
    """The restored process."""

    NONE = "none"
    HELD = "held"
    """Every thread stands at its last instruction."""
    RUNS = "runs"
    KILLED = "killed"


@dataclass(frozen=True)
class World:
    """What is on disks, and what the kernel would say."""

    source: State = State.SUSPENDING
    guest: Guest = Guest.RUNS
    images: Images = Images.NONE
    outcome: bool = False
    dump: Runtime = Runtime.WORKS
    power_failed: bool = False
    destination: State | None = None
    copy: Copy = Copy.NONE
    restore: Runtime = Runtime.NOT_CALLED
    commit_asked: bool = False
    accepted: bool = False
    """The answer to the commit is under way, or was lost: it may be heard at any time, or never."""
    ran_early: bool = False
    """An instruction of the application has run on the destination before the commit."""
    killed_committed: bool = False
    """What was restored was killed although it was committed."""


Rule = Callable[[World], Iterator[World]]


def move_source(world: World, state: State, **changes: object) -> World:
    assert may_move(Role.SOURCE, world.source, state), (world.source, state)
    return replace(world, source=state, **changes)  # type: ignore[arg-type]


def move_destination(world: World, state: State, **changes: object) -> World:
    old = world.destination
    assert old is not None and may_move(Role.DESTINATION, old, state), (old, state)
    return replace(world, destination=state, **changes)  # type: ignore[arg-type]


# A full disk needs no rule of its own: a write that does not come about is a step that is not taken yet.

# --- the source ----------------------------------------------------------------------------------------------


def agent_has_parked_the_guest(world: World) -> Iterator[World]:
    if world.source is State.SUSPENDING and world.guest is Guest.RUNS:
        yield replace(world, guest=Guest.PARKED)


def agent_lets_the_runtime_dump(world: World) -> Iterator[World]:
    if world.source is State.SUSPENDING and world.guest is Guest.PARKED and world.dump is Runtime.WORKS:
        yield move_source(world, State.DUMPING)


def agent_undoes_before_the_dump(world: World) -> Iterator[World]:
    """Any failure, a restart, a runtime that has ended."""
    if world.source is State.SUSPENDING:
        yield move_source(world, State.UNDONE)


def guest_goes_back(world: World) -> Iterator[World]:
    if world.source is State.UNDONE and world.guest is Guest.PARKED:
        yield replace(world, guest=Guest.RUNS)


def criu_dumps(world: World) -> Iterator[World]:
    if world.source is State.DUMPING and world.dump is Runtime.WORKS and world.guest is Guest.PARKED:
        if world.images is Images.NONE:
            yield replace(world, images=Images.WRITTEN)
        elif world.images is Images.WRITTEN:
            yield replace(world, guest=Guest.ENDED)


def runtime_sees_the_end_of_the_dump(world: World) -> Iterator[World]:
    if world.dump is Runtime.WORKS and world.guest is Guest.ENDED:
        yield replace(world, dump=Runtime.HAS_DONE)


def runtime_says_that_it_could_not_dump(world: World) -> Iterator[World]:
    """To the engine, after it has asked the agent, which looks whether the processes live."""
    before = world.source is State.UNDONE and world.guest is not Guest.ENDED
    if world.dump is Runtime.WORKS and before:
        yield replace(world, dump=Runtime.SAID_FAILURE)


def runtime_syncs_and_says_so(world: World) -> Iterator[World]:
    if world.dump is Runtime.HAS_DONE:
        if world.images is Images.WRITTEN:
            yield replace(world, images=Images.SYNCED)
        elif world.images is Images.SYNCED and not world.outcome:
            yield replace(world, outcome=True)


def runtime_succeeds(world: World) -> Iterator[World]:
    """Whatever the agent says, and also if nothing could be synced or written."""
    if world.dump is Runtime.HAS_DONE:
        yield replace(world, dump=Runtime.SAID_SUCCESS)


def runtime_of_the_dump_is_killed(world: World) -> Iterator[World]:
    if world.dump in (Runtime.WORKS, Runtime.HAS_DONE):
        yield replace(world, dump=Runtime.KILLED)


def agent_learns_of_the_dump(world: World) -> Iterator[World]:
    """By the report, the outcome file, or, in the same boot, by the end of the processes; a failure is looked at."""
    if world.source is State.DUMPING:
        dumped = world.outcome or (not world.power_failed and world.guest is Guest.ENDED)
        yield move_source(world, State.PARKED if dumped else State.UNDONE)


def engine_deletes_what_failed(world: World) -> Iterator[World]:
    if world.dump is Runtime.SAID_FAILURE and world.images in (Images.WRITTEN, Images.SYNCED):
        yield replace(world, images=Images.DELETED)


def power_fails(world: World) -> Iterator[World]:
    if not world.power_failed and world.source in (State.SUSPENDING, State.DUMPING, State.PARKED):
        synced = world.images is Images.SYNCED
        known = world.outcome or world.source is State.PARKED
        survives = world.guest is Guest.ENDED and synced and known
        yield replace(
            world,
            power_failed=True,
            guest=world.guest if survives else Guest.LOST,
            images=world.images if synced else Images.NONE,
            dump=Runtime.KILLED if world.dump in (Runtime.WORKS, Runtime.HAS_DONE) else world.dump,
        )


# --- the destination ------------------------------------------------------------------------------------------


def restore_is_claimed(world: World) -> Iterator[World]:
    """By another call after every one that was given back, of which nothing is left."""
    free = world.destination in (None, State.RELEASED) and world.copy in (Copy.NONE, Copy.KILLED)
    there = world.images in (Images.WRITTEN, Images.SYNCED)
    if world.source is State.PARKED and free and there and world.restore is not Runtime.WORKS:
        claimed = replace(world, destination=State.RESTORING, copy=Copy.NONE, restore=Runtime.WORKS)
        yield move_source(claimed, State.CLAIMED, commit_asked=False, accepted=False)


def criu_restores(world: World) -> Iterator[World]:
    if world.restore is Runtime.WORKS and world.destination is State.RESTORING and world.copy is Copy.NONE:
        yield replace(world, copy=Copy.HELD)


def agent_asks_for_the_commit(world: World) -> Iterator[World]:
    if world.destination is State.RESTORING and world.copy is Copy.HELD:
        yield move_destination(world, State.COMMITTING, commit_asked=True)


def source_commits(world: World) -> Iterator[World]:
    if world.commit_asked and world.source is State.CLAIMED:
        yield move_source(world, State.COMMITTED, accepted=True)


def agent_hears_of_the_commit(world: World) -> Iterator[World]:
    if world.destination is State.COMMITTING and world.accepted:
        yield move_destination(world, State.COMMITTED)


def agent_gives_back(world: World) -> Iterator[World]:
    """Any failure, a refusal, a restart before the commit, a deadline."""
    if world.destination in (State.RESTORING, State.COMMITTING):
        yield move_destination(world, State.RELEASED, commit_asked=False)


def source_takes_back(world: World) -> Iterator[World]:
    if world.destination is State.RELEASED and world.source in (State.CLAIMED, State.COMMITTED):
        yield move_source(world, State.PARKED, commit_asked=False, accepted=False)


def plugin_lets_it_go(world: World) -> Iterator[World]:
    """On the agent's word, which it gives when the commit is on its disk."""
    if world.copy is Copy.HELD and world.destination is State.COMMITTED:
        yield replace(world, copy=Copy.RUNS)


def plugin_kills_it(world: World) -> Iterator[World]:
    """On a durable RELEASED alone."""
    if world.copy is Copy.HELD and world.destination is State.RELEASED:
        yield replace(world, copy=Copy.KILLED)


def runtime_of_the_restore_ends(world: World) -> Iterator[World]:
    if world.restore is Runtime.WORKS:
        yield replace(world, restore=Runtime.KILLED)
        if world.copy is Copy.RUNS:
            yield replace(world, restore=Runtime.SAID_SUCCESS)
        if world.copy is Copy.KILLED:
            yield replace(world, restore=Runtime.SAID_FAILURE)


RULES: tuple[Rule, ...] = (
    agent_has_parked_the_guest,
    agent_lets_the_runtime_dump,
    agent_undoes_before_the_dump,
    guest_goes_back,
    criu_dumps,
    runtime_sees_the_end_of_the_dump,
    runtime_says_that_it_could_not_dump,
    runtime_syncs_and_says_so,
    runtime_succeeds,
    runtime_of_the_dump_is_killed,
    agent_learns_of_the_dump,
    engine_deletes_what_failed,
    power_fails,
    restore_is_claimed,
    criu_restores,
    agent_asks_for_the_commit,
    source_commits,
    agent_hears_of_the_commit,
    agent_gives_back,
    source_takes_back,
    plugin_lets_it_go,
    plugin_kills_it,
    runtime_of_the_restore_ends,
)

# --- what must hold --------------------------------------------------------------------------------------------


def violation(world: World) -> str:
    """Say what is wrong with a world, or nothing."""
    if world.guest is Guest.RUNS and world.copy is Copy.RUNS:
        return "it runs at both places"
    if world.images is Images.DELETED and world.guest is Guest.ENDED and world.copy is not Copy.RUNS:
        return "success was turned into failure: the images are deleted, and the application is nowhere"
    if world.dump is Runtime.SAID_FAILURE and world.guest is Guest.ENDED:
        return "a dump that has succeeded is called a failure"
    if world.killed_committed:
        return "what was committed was killed"
    if world.ran_early or (world.copy is Copy.RUNS and world.destination is not State.COMMITTED):
        return "it ran before the commit"
    waits = world.source in (State.PARKED, State.CLAIMED)
    if waits and world.images is Images.NONE and world.guest is not Guest.LOST:
        return "a checkpoint waits of which there is no image"
    if world.source is State.UNDONE and world.guest is Guest.ENDED:
        return "the source goes on with what has ended"
    return ""


def is_good_end(world: World) -> bool:
    """It runs, at one place."""
    return (world.source is State.UNDONE and world.guest is Guest.RUNS) or world.copy is Copy.RUNS


def is_lost_with_its_host(world: World) -> bool:
    """Its host's power has failed while it was on it: in memory, or in images that were not known to be on the disk."""
    return world.guest is Guest.LOST


@pytest.fixture(scope="module")
def searched() -> Searched[World]:
    return search(World(), RULES, violation)


def test_nothing_that_must_not_be_ever_is(searched: Searched[World]) -> None:
    came_from = searched.came_from
    wrong = [(violation(world), world) for world in came_from if violation(world)]
    assert not wrong, f"{wrong[0][0]}:\n{searched.story(wrong[0][1])}"
    assert len(came_from) > 300  # the search did search


def test_from_everywhere_it_can_run_again_unless_it_is_lost_with_its_host(searched: Searched[World]) -> None:
    came_from = searched.came_from
    alive = searched.leading_to(world for world in came_from if is_good_end(world))
    stuck = [world for world in came_from if world not in alive and not is_lost_with_its_host(world)]
    assert not stuck, searched.story(stuck[0])


def test_everything_that_may_happen_does(searched: Searched[World]) -> None:
    came_from = searched.came_from
    for wanted in (
        lambda w: w.copy is Copy.RUNS and w.dump is Runtime.KILLED,  # the runtime was killed after the dump
        lambda w: w.copy is Copy.RUNS and w.restore is Runtime.KILLED,
        lambda w: w.copy is Copy.RUNS and w.power_failed,
        lambda w: w.source is State.COMMITTED and w.destination is State.RELEASED,
        lambda w: w.dump is Runtime.SAID_FAILURE and w.images is Images.DELETED and w.guest is Guest.RUNS,
    ):
        assert any(wanted(world) for world in came_from)


# --- the search would find it -----------------------------------------------------------------------------------


def runtime_fails_because_the_agent_is_away(world: World) -> Iterator[World]:
    if world.dump is Runtime.HAS_DONE:
        yield replace(world, dump=Runtime.SAID_FAILURE)


def runtime_fails_because_of_what_came_after_criu(world: World) -> Iterator[World]:
    """An error on the way from runc's end to ours, taken for one of the dump."""
    if world.dump is Runtime.WORKS and world.guest is Guest.ENDED:
        yield replace(world, dump=Runtime.SAID_FAILURE)


def agent_believes_a_report_and_does_not_look(world: World) -> Iterator[World]:
    if world.source is State.DUMPING and world.dump is Runtime.KILLED:
        yield move_source(world, State.UNDONE)


def agent_takes_the_end_of_processes_for_a_dump_after_a_reboot(world: World) -> Iterator[World]:
    if world.source is State.DUMPING and world.guest is Guest.LOST:
        yield move_source(replace(world, guest=Guest.ENDED), State.PARKED)


def restored_threads_run_at_once(world: World) -> Iterator[World]:
    if world.copy is Copy.HELD and world.destination in (State.RESTORING, State.COMMITTING):
        yield replace(world, ran_early=True)


def plugin_gives_up_waiting_and_lets_it_go(world: World) -> Iterator[World]:
    if world.copy is Copy.HELD:
        yield replace(world, copy=Copy.RUNS)


def runtime_kills_when_the_agent_is_silent(world: World) -> Iterator[World]:
    if world.restore is Runtime.WORKS and world.copy is Copy.HELD:
        committed = world.destination is State.COMMITTED
        yield replace(world, copy=Copy.KILLED, killed_committed=committed)


def runtime_kills_for_an_error_after_the_commit(world: World) -> Iterator[World]:
    if world.restore is Runtime.WORKS and world.copy is Copy.RUNS:
        yield replace(world, copy=Copy.KILLED, killed_committed=True)


def source_undoes_a_dump_that_waits(world: World) -> Iterator[World]:
    if world.source in (State.DUMPING, State.PARKED) and world.guest is Guest.ENDED:
        yield replace(world, source=State.UNDONE)


def engine_starts_a_fresh_one_by_a_restart_policy(world: World) -> Iterator[World]:
    if world.guest is Guest.ENDED and world.copy is Copy.RUNS:
        yield replace(world, guest=Guest.RUNS)


@pytest.mark.parametrize(
    "broken",
    [
        runtime_fails_because_the_agent_is_away,
        runtime_fails_because_of_what_came_after_criu,
        agent_believes_a_report_and_does_not_look,
        agent_takes_the_end_of_processes_for_a_dump_after_a_reboot,
        restored_threads_run_at_once,
        plugin_gives_up_waiting_and_lets_it_go,
        runtime_kills_when_the_agent_is_silent,
        runtime_kills_for_an_error_after_the_commit,
        source_undoes_a_dump_that_waits,
        engine_starts_a_fresh_one_by_a_restart_policy,
    ],
)
def test_a_broken_rule_is_found(broken: Rule) -> None:
    came_from = search(World(), (broken, *RULES), violation).came_from
    assert any(violation(world) for world in came_from)
