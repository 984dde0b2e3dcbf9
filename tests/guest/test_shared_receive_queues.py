"""Shared receive queues: what was posted to them is where it was after a move, whichever queue pair it was for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from guest_agent import MOVING, PARTNER, PATIENT_S, Agent
from guest_moves import GIDS, SAME_INDEX, move
from guest_shell import ERR, Shell

LIMIT_REACHED, LAST_REACHED = 15, 16


@pytest.fixture
def shared(shell: Shell) -> Shell:
    """A queue of 16 on side 1; B, D and F receive by it from A, C and E."""
    shell.do("share 1 16")
    shell.connect("AB", "CD", "EF")
    return shell


def received(shell: Shell) -> list[str]:
    """QP and number of what has been received on side 1."""
    found = [one.split(":") for one in shell.poll(1).split()]
    assert all(what == "shared" and status == "0" for _, what, status, _ in found), found
    return [name + number for name, _, _, number in found]


def expected(names: str, numbers: Iterable[int]) -> list[str]:
    return [name + str(number) for name, number in zip(names, numbers, strict=True)]


def rebuild(agent: Agent) -> None:
    for context in (1, 2):
        agent.ask("REBUILD", {"context": context, "device": "fake1"}, [SAME_INDEX])


def resume(agent: Agent) -> None:
    agent.connect_all({1: (GIDS[1], MOVING), 2: (GIDS[1], PARTNER)})
    agent.give_keys(1, MOVING)
    agent.give_keys(2, PARTNER)
    agent.resume()


@pytest.mark.parametrize("listed", [1, 5, 40])
def test_receives_wait_in_their_order_through_moves(shared: Shell, agent: Agent, listed: int) -> None:
    shared.do(f"shared 1 10 {listed}")
    number = 0
    for names in ("AC", "E", "CA", "EA", "C"):
        move(agent, (number % 2, (number + 1) % 2))
        for name in names:
            shared.do(f"send {name} 1")
        receivers = "".join("BDF"["ACE".index(name)] for name in names)
        assert received(shared) == expected(receivers, range(number, number + len(names)))
        number += len(names)
    assert received(shared) == []
    assert agent.ask("INVENTORY").body["receives"] == 10 - number


def test_inventory_counts_it_and_nothing_speaks_against_a_move(shared: Shell, agent: Agent) -> None:
    shared.do("shared 1 7")
    inventory = agent.ask("INVENTORY")
    assert (inventory.body["migratable"], inventory.records) == (1, [])
    assert (inventory.body["srqs"], inventory.body["receives"]) == (1, 7)


def test_receives_of_a_parked_process_follow_those_before(shared: Shell, agent: Agent) -> None:
    shared.do("shared 1 2")
    agent.quiesce()
    shared.do("shared 1 2")
    agent.ask("PARK")
    shared.do("shared 1 2")
    rebuild(agent)
    shared.do("shared 1 2 2")
    resume(agent)
    shared.do("shared 1 1", "send A 5", "send C 4")
    assert received(shared) == expected("BBBBBDDDD", range(9))


@pytest.mark.parametrize("rebuilt", [False, True])
def test_undone_move_leaves_every_receive_where_it_was_once(
    shared: Shell, agent: Agent, rebuilt: bool
) -> None:
    shared.do("shared 1 3", "limit 1 2")
    agent.quiesce()
    agent.ask("PARK")
    shared.do("shared 1 3")
    if rebuilt:
        agent.ask("REBUILD", {"context": 2, "device": "fake0"}, [SAME_INDEX])
        shared.do("shared 1 1")
    agent.ask("UNDO")
    shared.do("shared 1 1", f"send A {8 if rebuilt else 7}")
    assert received(shared) == expected("B" * (8 if rebuilt else 7), range(8 if rebuilt else 7))
    assert shared.tell("async 1") == f"{LIMIT_REACHED} shared"


def test_parked_process_posts_as_many_as_the_queue_holds(shared: Shell, agent: Agent) -> None:
    shared.do("shared 1 14", "send A 3")
    agent.quiesce()
    agent.ask("PARK")
    assert shared.tell("shared 1 6 4") == "ENOMEM"  # three have completed
    rebuild(agent)
    resume(agent)
    assert received(shared) == expected("BBB", range(3))
    shared.do("send C 16")
    assert received(shared) == expected("D" * 16, range(3, 19))


def test_more_receives_than_the_queue_is_deep_wait_for_the_poller(shared: Shell, agent: Agent) -> None:
    for _ in range(8):
        shared.do("shared 1 16 16", "send A 8", "send C 8")
    shared.do("shared 1 16 16")
    move(agent, (1, 0))
    shared.do("send E 16")
    assert received(shared) == expected("BBBBBBBBDDDDDDDD" * 8 + "F" * 16, range(144))


def test_completions_that_nobody_polled_stay_before_those_of_after(shared: Shell, agent: Agent) -> None:
    shared.do("shared 1 6", "send A 1", "send C 1")
    move(agent, (1, 0))
    shared.do("send E 1", "send A 1")
    assert received(shared) == expected("BDFB", range(4))


@pytest.mark.parametrize("moved", [False, True])
def test_limit_stays_armed_until_it_has_been_reached(shared: Shell, agent: Agent, moved: bool) -> None:
    shared.do("shared 1 6", "limit 1 4")
    if moved:
        move(agent, (1, 0))
    assert shared.tell("limits 1") == "16 1 4"
    assert shared.tell("async 1") == "ENOENT"
    shared.do("send A 2")
    assert shared.tell("async 1") == "ENOENT"
    shared.do("send A 1")
    assert shared.tell("async 1") == f"{LIMIT_REACHED} shared"
    if moved:
        move(agent, (0, 1))
    assert shared.tell("limits 1") == "16 1 0"
    shared.do("send C 1")
    assert shared.tell("async 1") == "ENOENT"


def test_limit_that_was_reached_before_a_move_is_told_after_it_once(shared: Shell, agent: Agent) -> None:
    shared.do("shared 1 6", "limit 1 6", "send A 1")
    move(agent, (1, 0))
    shared.do("send A 1")
    assert shared.tell("async 1") == f"{LIMIT_REACHED} shared"
    assert shared.tell("async 1") == "ENOENT"


def test_end_of_a_queue_pair_says_that_it_takes_no_more(shared: Shell, agent: Agent) -> None:
    shared.do("shared 1 3", "send C 1", "err B")
    assert shared.tell("async 1") == f"{LAST_REACHED} B"
    assert received(shared) == expected("D", [0])
    shared.do("destroy B", "destroy A")
    move(agent, (1, 0))
    shared.do("send C 1", "send E 1")
    assert received(shared) == expected("DF", [1, 2])


@pytest.mark.parametrize("told", [False, True])
def test_failed_queue_pair_moves_and_says_once_that_it_takes_no_more(
    shared: Shell, agent: Agent, told: bool
) -> None:
    shared.do("shared 1 4", "err B")
    if told:
        assert shared.tell("async 1") == f"{LAST_REACHED} B"
    for turn in range(2):
        move(agent, (1 - turn, turn))
        shared.do("send C 1", "send E 1")
        assert received(shared) == expected("DF", [turn * 2, turn * 2 + 1])
        if not told and not turn:
            assert shared.tell("async 1") == f"{LAST_REACHED} B"
        assert shared.tell("async 1") == "ENOENT"
    assert shared.state("B") == ERR


def test_error_consumes_the_receive_that_it_names(shared: Shell, agent: Agent) -> None:
    shared.do("shared 1 1", "short 1", "shared 1 3", "send C 1", "send A 1")
    ended, failed = shared.poll(1).split()
    assert ended == "D:shared:0:0"
    assert failed.startswith("B:shared:1:1"), "a message that is too long"
    shared.do("destroy B", "destroy A")
    move(agent, (0, 1))
    shared.do("send C 1", "send E 2")
    assert received(shared) == expected("DFF", [2, 3, 4])
    assert agent.ask("INVENTORY").body["receives"] == 0


def test_flushed_send_is_not_taken_for_a_receive(shared: Shell) -> None:
    shared.do("shared 1 4", "err B", "send B 2")
    assert shared.poll(1) == "B:send:5:0 B:send:5:1"


@pytest.mark.parametrize("mover", [0, 1])
def test_partners_move_one_after_the_other(shared: Shell, agent: Agent, mover: int) -> None:
    """The queue belongs to a partner; its queue pairs are quiesced at different times, and the others go on."""
    shared.do("shared 1 16")
    names = {name: [{"context": side + 1, "vqpn": shared.numbers[name]} for name, side in pair]
             for name, pair in (("A", [("A", 0), ("B", 1)]), ("C", [("C", 0), ("D", 1)]))}  # fmt: skip
    for quiesced, going in (("A", "C"), ("C", "A")):
        agent.ask("PREPARE", {"kind": 2}, names[quiesced])
        agent.ask("QUIESCE", {"kind": 2, "timeout_ms": 1000 * PATIENT_S}, names[quiesced])
        shared.do(f"send {going} 2", f"send {quiesced} 1", "send E 1")
        agent.connect_all({1: (GIDS[0], MOVING), 2: (GIDS[1], PARTNER)})
        agent.give_keys(1, MOVING)
        agent.give_keys(2, PARTNER)
        agent.resume()
    first = received(shared)
    assert sorted(first, key=lambda one: int(one[1:])) == first
    assert "".join(one[0] for one in first) == "DDFBBBFD"
    move(agent, (mover, 1 - mover))
    shared.do("send A 2", "send C 3", "send E 3")
    assert received(shared) == expected("BBDDDFFF", range(8, 16))


def test_queue_ends_when_nobody_uses_it(shared: Shell, agent: Agent) -> None:
    shared.do("shared 1 4", "send A 1")
    assert shared.tell("unshare 1") == "EBUSY"
    move(agent, (1, 0))
    shared.do("destroy B", "destroy D", "destroy F")
    shared.do("unshare 1")
    assert agent.ask("INVENTORY").body["srqs"] == 0
    assert int(shared.tell("made srqs")) == 0
    move(agent, (0, 1))
