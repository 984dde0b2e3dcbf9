"""What a broken connection to a node tells of the reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from migrrdma_lab.errors import NodeCommandError
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
