"""What is shown of a move while it is under way: to a person, on a terminal, to a program."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from migrrdma_runtime.commands import move_view

_EVENTS: list[dict[str, Any]] = [
    {"move": "0123456789abcdef", "step": "looking", "state": "begun"},
    {"move": "0123456789abcdef", "step": "looking", "state": "done", "seconds": 0.25},
    {"move": "0123456789abcdef", "step": "sending the rest", "state": "begun"},
    {"move": "0123456789abcdef", "sending": "memory", "bytes": 3 << 20, "total": 4 << 20},
    {"move": "0123456789abcdef", "waiting": "whether it runs on dst is not known"},
    {"move": "0123456789abcdef", "step": "sending the rest", "state": "failed", "seconds": 1.5},
    {"move": "0123456789abcdef", "undone": "the network was \x1b[31mcut"},
]
_RECEIPT = {
    "move": "0123456789abcdef", "container": "web", "source": "src", "destination": "dst",
    "steps": [{"name": "looking", "start": 1.0, "seconds": 0.25}], "bytes": {"memory": 3 << 20},
    "blackouts": {"peer": 0.125}, "lost": ["QP 0x11: its process has ended"],
}  # fmt: skip


def test_a_person_reads_the_steps_and_why_it_was_undone(capsys: pytest.CaptureFixture[str]) -> None:
    with move_view.choose(as_json=False) as view:
        for one in _EVENTS:
            view.show(one)
        view.done(_RECEIPT)
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == ["looking …", "sending the rest …"]
    assert "web has moved from src to dst (move 0123456789abcdef)" in out
    assert "looking                           0.250 s" in out
    assert "memory sent                       3.0 MiB" in out
    assert "blackout at peer                  0.125 s" in out
    assert "lost: QP 0x11" in out
    assert "whether it runs on dst is not known" in err
    assert "undone: the network was" in err
    assert "\x1b" not in err


def test_a_program_reads_every_event_and_the_receipt_last(capsys: pytest.CaptureFixture[str]) -> None:
    with move_view.choose(as_json=True) as view:
        for one in _EVENTS:
            view.show(one)
        view.done(_RECEIPT)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [*_EVENTS, {"receipt": _RECEIPT}]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with move_view.choose(as_json=False) as view:
        for one in _EVENTS:
            view.show(one)
    shown = terminal.getvalue()
    assert "sending the rest" in shown
    assert "3.1/4.2 MB" in shown
    assert "undone: the network was" in shown
    assert "\x1b[31mcut" not in shown
