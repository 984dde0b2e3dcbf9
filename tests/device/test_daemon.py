"""The daemon of software devices serves several hosts at once, whatever one process does."""

from __future__ import annotations

import select
import socket
from pathlib import Path

import pytest
from migrrdma_lab.device.build import build_daemon
from migrrdma_lab.device.daemon import SOCKET, Daemon, DeviceHost


@pytest.fixture(scope="session")
def daemon_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("daemon") / "deviced"
    build_daemon(program)
    return program


def test_a_process_that_connects_and_says_nothing_keeps_nobody_waiting(
    daemon_program: Path, tmp_path: Path
) -> None:
    """It may have been stopped there, by a debugger or for a checkpoint."""
    folder = tmp_path / "src"
    folder.mkdir()
    daemon = Daemon(daemon_program, tmp_path / "daemon")
    daemon.start([DeviceHost("src", folder)])
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.connect(str(folder / SOCKET))
            assert daemon.control.ask("hosts") == [f"src rxe0 {folder / SOCKET} 0"]
            still_open, _, _ = select.select([silent], [], [], 0)
            assert not still_open, "the daemon waited for it, gave it up, and only then went on"
    finally:
        daemon.stop()
