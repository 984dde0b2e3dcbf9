"""Extended completion queues survive a move; so do QPs with ``ibv_wr_*``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import Built, compile_c
from guest_moves import move_alone


@pytest.fixture(params=["plain", "address"])
def extended(
    builds: Callable[[str], Built], agent: Agent, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Program]:
    built = builds(request.param)
    compile_c(tmp_path / "extended", Path(__file__).with_name("extended.c"), "-libverbs")
    environment = {**built.environment, **agent.environment}
    # Posting executes: what was posted has completed when the call returns.
    del environment["FAKE_ASYNC"]
    with Program([tmp_path / "extended"], environment, tmp_path / "log") as program:
        agent.diagnosis = program.diagnosis
        agent.accept()
        yield program


def test_extended_completion_queue_walks_on_after_moves(extended: Program, agent: Agent) -> None:
    assert extended.tell("walk") == "ok"
    for _ in range(3):
        move_alone(agent)
        assert extended.tell("walk") == "ok"


def test_requests_built_call_by_call_work_after_moves(extended: Program, agent: Agent) -> None:
    assert extended.tell("wr") == "ok"
    for _ in range(3):
        move_alone(agent)
        assert extended.tell("again") == "ok"
    assert extended.tell("end") == "ok"
    assert extended.tell("walk") == "ok"
