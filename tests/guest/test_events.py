"""Completion events through moves: as many as were asked for and are due, and none that is not.

How two processes see it, of which one goes on before the other: ``tests/fast/test_events.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guest_agent import Agent, GuestError
from guest_moves import SAME_INDEX, move, rebuild_and_resume
from guest_shell import Shell


def _undo_a_rebuild(agent: Agent) -> None:
    agent.ask("REBUILD", {"context": 2, "device": "fake0"}, [SAME_INDEX])
    agent.ask("UNDO")


def _undo_a_failed_rebuild(shell: Shell, agent: Agent) -> None:
    shell.do("fail modify_qp 1 12")
    with pytest.raises(GuestError, match="fake0"):
        agent.ask("REBUILD", {"context": 2, "device": "fake0"}, [SAME_INDEX])
    agent.ask("UNDO")


ENDS: dict[str, Callable[[Shell, Agent], None]] = {
    "moved": lambda _, agent: rebuild_and_resume(agent),
    "undone": lambda _, agent: _undo_a_rebuild(agent),
    "failed": _undo_a_failed_rebuild,
}


def _events(shell: Shell, side: int) -> int:
    count = 0
    while shell.tell(f"event {side}") == "1":
        count += 1
    return count


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("parked", [False, True], ids=["asked before", "asked while parked"])
def test_completion_after_a_move_has_one_event(shell: Shell, agent: Agent, parked: bool, end: str) -> None:
    shell.connect("AB")
    shell.do("recv B 2")
    if not parked:
        shell.do("arm 1")
    agent.quiesce()
    agent.ask("PARK")
    if parked:
        shell.do("arm 1")
    shell.do("send A 1")  # kept
    ENDS[end](shell, agent)
    assert _events(shell, 1) == 1
    assert shell.poll(1) == "B:recv:0:0"
    # The one that was asked for has come.
    shell.do("send A 1")
    assert _events(shell, 1) == 0


def test_event_that_nobody_asks_for_any_more_does_not_come(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("recv B 3", "arm 1", "send A 1")
    assert _events(shell, 1) == 1
    move(agent, (1, 0))
    shell.do("send A 1")
    assert _events(shell, 1) == 0
    shell.do("arm 1", "send A 1")
    assert _events(shell, 1) == 1


def test_event_that_nobody_has_read_is_brought_along_once(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("recv B 2", "arm 1", "send A 1")
    move(agent, (1, 0))
    shell.do("send A 1")
    assert _events(shell, 1) == 1
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1"


def test_flushes_of_a_dead_one_have_an_event(shell: Shell, agent: Agent) -> None:
    """They are made by the park itself."""
    shell.connect("AB")
    shell.do("recv B 2", "arm 1", "err A", "send A 1")
    shell.do("err B")
    move(agent, (1, 0))
    assert _events(shell, 1) == 1


def test_solicited_events_that_are_asked_for_besides_take_nothing_back(shell: Shell, agent: Agent) -> None:
    """Who has asked for any event, and has not had it, has it still when it asks for less."""
    shell.connect("AB")
    shell.do("recv B 1", "arm 1 0", "arm 1 1")
    move(agent, (1, 0))
    shell.do("send A 1")
    assert _events(shell, 1) == 1
