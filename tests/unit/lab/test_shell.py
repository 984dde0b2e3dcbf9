"""What a broken connection to a node, or a command that does not end there, tells of the reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from migrrdma_lab.errors import MachineError, NodeCommandError
from migrrdma_lab.plan import PEER, RELEASES, Places
from migrrdma_lab.qemu.disk import NodeImage
from migrrdma_lab.qemu.ssh import SshShell

_PANIC = "[ 1654.469098] BUG: kernel NULL pointer dereference, address: 0000000000000008"


@pytest.mark.parametrize(
    ("console", "told"),
    [
        (f"booting\n{_PANIC}\nmore of it\n", f"exited with 255: the connection to it broke; its kernel says: {_PANIC}"),
        ("booting\n", "exited with 255: the connection to it broke$"),
        ("[ 377.8] watchdog: BUG: soft lockup - CPU#0 stuck for 145s!\n", "255: the connection to it broke$"),
        (None, "exited with 255: the connection to it broke$"),
    ],
    ids=["crashed", "did not crash", "was starved", "no console"],
)  # fmt: skip
def test_a_crashed_kernel_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: str | None, told: str
) -> None:
    monkeypatch.setattr(Places, "run", property(lambda _places: tmp_path))
    if console is not None:
        (tmp_path / "peer.console").write_text(console)
    monkeypatch.setattr(SshShell, "command", lambda _shell, words: ["sh", "-c", "exit 255", *words])
    shell = SshShell(Places(RELEASES["trixie"]), PEER, NodeImage(tmp_path))
    with pytest.raises(NodeCommandError, match=told.replace("[", r"\[")):
        shell.run("docker", "logs", "server")
    assert isinstance(shell.run("true", check=False), subprocess.CompletedProcess)


def test_of_a_command_that_does_not_end_it_is_told_what_the_node_does_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards nobody can find out any more whether it starved, hung or was answered by nobody."""
    monkeypatch.setattr(SshShell, "command", lambda _shell, words: list(words))
    shell = SshShell(Places(RELEASES["trixie"]), PEER, NodeImage(tmp_path))
    with pytest.raises(
        MachineError,
        match=r"(?s)`sleep 4711` did not end in 0 s; what it does:\n.*load average.*\n +[0-9]+ [A-Z]",
    ):
        shell.run("sleep", "4711", timeout=0.2)
