"""Queues that are full, and completion queues with room for exactly what an application can have under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import Built, compile_c
from guest_moves import move

PAIRS, DEPTH = 6, 7
ALL = PAIRS * DEPTH


@pytest.fixture
def full(built: Built, agent: Agent, tmp_path: Path) -> Iterator[Program]:
    compile_c(tmp_path / "full", Path(__file__).with_name("full.c"), "-libverbs")
    environment = {**built.environment, **agent.environment}
    # Posting executes: what a command has posted has completed when it answers.
    del environment["FAKE_ASYNC"]
    with Program([tmp_path / "full"], environment, tmp_path / "log") as program:
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
    agent.ask("ABORT")
    assert full.tell("poll") == f"{ALL} {ALL}"
    move(agent, (0, 1))
    assert full.tell("fill") == "ok"
    assert full.tell("receive") == "ok"
    assert full.tell("poll") == f"{ALL} {ALL}"
    assert full.tell("overflows") == "0"
