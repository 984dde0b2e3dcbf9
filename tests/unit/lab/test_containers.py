"""A container that has ended by itself says so where a command for it fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError, RackError
from migrrdma_lab.plan import RELEASES, SRC, Places
from migrrdma_lab.qemu.disk import NodeImage
from migrrdma_lab.qemu.ssh import SshShell

_DOCKER = """#!/bin/sh
case $1 in
checkpoint | start) echo "Error response from daemon: container not running" >&2; exit {code} ;;
inspect) echo "{state}" ;;
logs) echo "Can't produce a report" >&2 ;;
esac
"""

_END = "src: container client does not run: exited, exit code 1"
_LAST_LINES = "; its last lines are:\nCan't produce a report"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    monkeypatch.setattr(SshShell, "command", lambda _shell, words: list(words))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Container(SshShell(Places(RELEASES["trixie"]), SRC, NodeImage(tmp_path)), "client")


def _docker(folder: Path, state: str, code: int = 1) -> None:
    fake = folder / "docker"
    fake.write_text(_DOCKER.format(state=state, code=code))
    fake.chmod(0o755)


@pytest.mark.parametrize(
    ("state", "code", "notes"),
    [
        pytest.param("exited, exit code 1", 1, [_END + _LAST_LINES], id="it has ended"),
        pytest.param("", 1, [], id="it runs"),
        # Nobody would answer, or very late.
        pytest.param("exited, exit code 1", 255, [], id="the node is gone"),
    ],
)
def test_how_a_container_has_ended_is_told_when_its_checkpoint_or_restore_fails(
    tmp_path: Path, client: Container, state: str, code: int, notes: list[str]
) -> None:
    _docker(tmp_path, state, code)
    for do in (client.checkpoint, client.restore):
        with pytest.raises(NodeCommandError, match="container not running") as failure:
            do("move")
        assert getattr(failure.value, "__notes__", []) == notes


def test_the_last_lines_of_what_has_ended_are_seen(tmp_path: Path, client: Container) -> None:
    """As often as it takes for the follower to end before its lines are read."""
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\nfor line in 1 2 3 4 5 6 7 8 last; do echo $line; done\n")
    fake.chmod(0o755)
    for _ in range(20):
        client.wait_for_line("^last$", 30)


def test_no_line_comes_any_more_when_the_output_has_ended(tmp_path: Path, client: Container) -> None:
    _docker(tmp_path, "exited, exit code 1")
    told = "'^4096' before its output ended after its first 0; its last lines are:\nCan't produce a report"
    with pytest.raises(RackError, match=re.escape(told)) as failure:
        client.wait_for_line("^4096", 30)
    assert failure.value.__notes__ == [_END]
