"""Threads that are cancelled, interrupted or stopped inside a verb, at a place that the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import Built, compile_c

Start = Callable[..., Program]

UNANSWERED_S = 0.5
"""For how long a guest is listened to that must not answer yet: one that does wrong answers at once."""


@pytest.fixture
def start_stalls(builds: Callable[[str], Built], agent: Agent, tmp_path: Path) -> Iterator[Start]:
    programs: list[Program] = []

    def run(variant: str = "plain") -> Program:
        built = builds(variant)
        compile_c(
            tmp_path / "stalls", Path(__file__).with_name("stalls.c"), "-rdynamic", "-libverbs", "-pthread"
        )
        environment = {**built.environment, **agent.environment}
        # Posting executes: what a command has posted has completed when it answers.
        del environment["FAKE_ASYNC"]
        program = Program([tmp_path / "stalls"], environment, tmp_path / "log")
        programs.append(program)
        agent.diagnosis = program.diagnosis
        agent.accept()
        return program

    yield run
    for program in programs:
        program.__exit__(None, None, None)


@pytest.fixture
def stalls(start_stalls: Start) -> Program:
    return start_stalls()


def does_not_answer(agent: Agent) -> None:
    agent.connection.settimeout(UNANSWERED_S)
    with pytest.raises(TimeoutError):
        agent.receive()
    agent.connection.settimeout(20)


@pytest.mark.parametrize("verb", ["async", "post"])
def test_thread_that_was_cancelled_in_a_section_holds_nobody_up(
    stalls: Program, agent: Agent, verb: str
) -> None:
    """In the read of an event, or in a doorbell that is a write."""
    stalls.tell("receive 1")
    assert stalls.tell(f"start {verb} {'cancelled' if verb == 'async' else 'cancel'}") == "started"
    assert stalls.tell(f"join {verb}") == "cancelled"
    agent.quiesce()
    agent.resume()
    assert stalls.tell("start register free") == "started"
    assert stalls.tell("join register") == "returned"


def test_thread_that_is_cancelled_in_a_verb_leaves_it_first(stalls: Program, agent: Agent) -> None:
    assert stalls.tell("start register cancel") == "started"
    assert stalls.tell("join register") == "cancelled"
    agent.quiesce()
    agent.resume()


def test_signal_handler_that_polls_does_not_end_the_section_that_it_interrupts(
    stalls: Program, agent: Agent
) -> None:
    stalls.tell("receive 3")
    for _ in range(2):  # a first send goes another way
        stalls.tell("start post free")
        stalls.tell("join post")
    assert stalls.tell("start post signal") == "inside"
    agent.send("QUIESCE", {"timeout_ms": 5000})
    does_not_answer(agent)
    stalls.tell("go")
    assert stalls.tell("join post") == "returned"
    assert agent.answer().kind == "DONE"
    agent.resume()
