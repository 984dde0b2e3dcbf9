"""Queues that are full, and completion queues with room for exactly what an application can have under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_agent import Agent, GuestError, Program
from guest_build import Built, compile_c
from guest_moves import move
from guest_shell import Shell

PAIRS, DEPTH = 6, 7
ALL = PAIRS * DEPTH


SENDS = 30 * DEPTH


@pytest.fixture(params=[DEPTH])
def full(built: Built, agent: Agent, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    compile_c(tmp_path / "full", Path(__file__).with_name("full.c"), "-libverbs")
    environment = {**built.environment, **agent.environment}
    # Posting executes: what a command has posted has completed when it answers.
    del environment["FAKE_ASYNC"]
    with Program([tmp_path / "full", str(request.param)], environment, tmp_path / "log") as program:
        agent.diagnosis = program.diagnosis
        agent.accept()
        yield program


def test_full_completion_queues_overflow_in_no_move(full: Program, agent: Agent) -> None:
    for turn in range(3):
        assert full.tell("receive") == "ok"
        assert full.tell("fill") == "ok"
        agent.quiesce()
        agent.resume()
        move(agent, (turn % 2, 1 - turn % 2))
        assert full.tell("overflows") == "0"
        assert full.tell("poll") == f"{ALL} {ALL}"
    assert full.tell("poll") == "0 0"


def test_kept_sends_fill_a_queue_as_others_do(full: Program, agent: Agent) -> None:
    agent.quiesce()
    assert full.tell("receive") == "ok"
    assert full.tell("fill") == "ok"
    assert full.tell("refused") == "ok"
    assert full.tell("poll") == "0 0"
    agent.resume()
    assert full.tell("poll") == f"{ALL} {ALL}"
    assert full.tell("overflows") == "0"


def test_sends_kept_while_parked_fill_a_queue_as_others_do(full: Program, agent: Agent) -> None:
    agent.quiesce()
    agent.ask("PARK")
    assert full.tell("receive") == "ok"
    assert full.tell("fill") == "ok"
    assert full.tell("refused") == "ok"
    agent.ask("UNDO")
    assert full.tell("poll") == f"{ALL} {ALL}"
    move(agent, (0, 1))
    assert full.tell("fill") == "ok"
    assert full.tell("receive") == "ok"
    assert full.tell("poll") == f"{ALL} {ALL}"
    assert full.tell("overflows") == "0"


def test_marker_that_a_reset_has_swallowed_is_waited_for_no_more(full: Program, agent: Agent) -> None:
    """A drain that came to nothing has left a marker in each send queue, behind what cannot be delivered."""
    for _ in range(12):  # more markers than a completion queue has room for
        assert full.tell("fill") == "ok"
        with pytest.raises(GuestError, match="QPs did not drain in time"):
            agent.quiesce(timeout_ms=20)
        assert full.tell("reset") == "ok"
    move(agent, (1, 0))
    assert full.tell("receive") == "ok"
    assert full.tell("fill") == "ok"
    agent.quiesce()
    agent.resume()
    assert full.tell("poll") == f"{ALL} {ALL}"
    assert full.tell("overflows") == "0"


@pytest.mark.parametrize("full", [SENDS], indirect=True)
@pytest.mark.parametrize("turns", [1, 3])
def test_receive_list_may_be_longer_than_the_queue_is_deep(full: Program, agent: Agent, turns: int) -> None:
    """The device takes from its front while it is posted; what is left at its end is posted again after a move."""
    for turn in range(turns):
        assert full.tell("fill") == "ok"
        assert full.tell("receive all") == "ok"
        move(agent, (turn % 2, 1 - turn % 2))
        assert full.tell("poll") == f"{PAIRS * SENDS} {PAIRS * SENDS}"
        # What the list has left takes the first of the next sends, in its order.
        assert full.tell("fill") == "ok"
        assert full.tell("poll") == f"{ALL} {ALL}"
        for _ in range(SENDS // DEPTH - 1):
            assert full.tell("receive") == "ok"
            assert full.tell("poll") == f"{ALL} {ALL}"
        assert full.tell("overflows") == "0"


@pytest.mark.parametrize("full", [1], indirect=True)
def test_receive_that_a_full_queue_refuses_is_not_posted_after_a_move(full: Program, agent: Agent) -> None:
    """Wherever in the library's ring it would stand: in the last place, too, behind which it goes on at the first."""
    assert full.tell("receive") == "ok"
    for turn in range(40):
        if turn % 5 == 0:  # in turns of another length than the ring
            move(agent, (turn // 5 % 2, 1 - turn // 5 % 2))
        assert full.tell("refused receive") == "ok"
        assert full.tell("fill") == "ok"
        assert full.tell("poll") == f"{PAIRS} {PAIRS}"
        assert full.tell("receive one") == "ok"


def test_completion_queue_is_resized_to_what_the_device_has(shell: Shell, agent: Agent) -> None:
    """Without room to spare, which there is again as soon as it is smaller."""
    most = shell.tell("resize 1 0").split()[-1]
    assert most.isdigit()
    assert shell.tell("resize 1 0") == f"{most} of {most}"
    shell.connect("AB")
    shell.do("recv B 3", "send A 1")
    move(agent, (1, 0))
    shell.do("send A 1")
    assert shell.tell("resize 1 100") == f"100 of {most}"
    move(agent, (0, 1))
    shell.do("send A 1")
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1 B:recv:0:2"
