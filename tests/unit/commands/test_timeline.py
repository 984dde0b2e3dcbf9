"""A timeline has steps of other hosts: whatever their agents call them, and whenever they say that they were."""

from __future__ import annotations

import pytest

from migrrdma_runtime.base.errors import MessageError
from migrrdma_runtime.commands import timeline
from migrrdma_runtime.wire import agent_messages

STEP = {"name": "dump", "host": "src", "start": 1.7e9, "seconds": 2.0}


def test_a_steps_name_cannot_write_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = agent_messages.check({**STEP, "name": "\x1b[2J\x1b[H"}, agent_messages.STEP, "a step")
    known = {"migration": "a" * 16, "updated": 1.0, "timeline": [step]}
    monkeypatch.setattr(timeline, "ask", lambda _command: {"migrations": [known]})
    timeline.timeline("", as_json=False)
    said = capsys.readouterr().out
    assert r"\x1b[2J\x1b[H" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("start", [-1.7e308, 1.7e308, -1])
def test_a_step_of_no_time_is_none(start: float) -> None:
    """Of two that are farther from each other than a number can be no picture can be drawn."""
    with pytest.raises(MessageError, match="start: "):
        agent_messages.check({**STEP, "start": start}, agent_messages.STEP, "a step")
