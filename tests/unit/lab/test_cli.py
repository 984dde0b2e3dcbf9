"""``lab/rack`` answers a user's mistakes with one message, not with a traceback."""

from __future__ import annotations

import os
import sys

import pytest
from migrrdma_lab import cli


@pytest.mark.parametrize(
    "command", ["up", "down", "status", "reset", "install", "ssh src true", "power-off src"]
)
@pytest.mark.parametrize("kind", ["emulated", "fast"])
def test_who_is_not_root_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, command: str
) -> None:
    """And not, by ``status``, that nothing runs: a rack's state is root's to see."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setenv("RACK", kind)
    monkeypatch.delenv("RELEASE", raising=False)
    monkeypatch.setattr(sys, "argv", ["rack", *command.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "rack: error: a rack's hosts, disks and networks are root's: run lab/rack as root\n"
