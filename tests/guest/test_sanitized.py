"""The moves again, under AddressSanitizer and UBSan, and the quiesce protocol under ThreadSanitizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guest_agent import Agent, Program
from guest_build import Built
from guest_moves import TRAFFIC, ids, move, partner_move

Start = Callable[..., Program]


@pytest.mark.parametrize("options", TRAFFIC, ids=ids)
@pytest.mark.parametrize("variant", ["address", "thread"])
def test_nothing_is_reported(
    start: Start, agent: Agent, builds: Callable[[str], Built], options: tuple[str, ...], variant: str
) -> None:
    program = start(*options, build=builds(variant))
    for turn in range(8):
        agent.quiesce()
        agent.resume()
        move(agent, (turn % 2, 1 - turn % 2))
        partner_move(agent, turn % 2, 1 - turn % 2)
        program.wait_for_progress(30)
    move(agent, (0, 1), restored=program)
    program.wait_for_progress(30)
    assert program.verdict() == "exact", program.diagnosis()
    assert "Sanitizer" not in program.diagnosis()


@pytest.mark.parametrize(("variant", "rounds"), [("address", 300), ("thread", 150)])
def test_nothing_is_reported_while_qps_come_and_go(
    start: Start, agent: Agent, builds: Callable[[str], Built], variant: str, rounds: int
) -> None:
    program = start("-q", "2", "-e", "-r", "-t", build=builds(variant))
    for _ in range(rounds):
        agent.quiesce()
        agent.resume()
        move(agent, (0, 1), whole=True)
    program.wait_for_progress(30)
    assert program.verdict() == "exact", program.diagnosis()
    assert "Sanitizer" not in program.diagnosis()
