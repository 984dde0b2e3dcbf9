"""A rack command that is ended from outside clears up, and nothing of what it has started goes on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from migrrdma_lab.errors import BuildError
from migrrdma_lab.plan import REPOSITORY
from migrrdma_lab.steps import run_logged

_UP = """
import signal, sys
from migrrdma_lab import cli

class Rack:
    def up(self, nodes):
        try:
            print("up", flush=True)
            signal.pause()
        finally:
            print("down", flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and one of nohup this
cli.Rack = Rack
cli.choose_rack = lambda *_: Rack()
sys.argv = ["rack", "up"]
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_clears_up_when_it_is_ended_by(number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "lab")}
    with subprocess.Popen(
        [sys.executable, "-c", _UP], stdout=subprocess.PIPE, text=True, env=environment
    ) as command:  # fmt: skip
        assert command.stdout is not None
        assert command.stdout.readline() == "up\n"
        command.send_signal(number)
        try:
            assert command.communicate(timeout=30)[0] == "down\n"
        finally:
            command.kill()
        assert command.returncode == 128 + number


def test_what_a_build_step_has_started_ends_with_it(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 9>{held}; sleep 1000 & wait"
    with pytest.raises(BuildError, match="no end after 1 s"):
        run_logged(["sh", "-c", script], tmp_path / "log", 1)
    # The reader sees the end when the last process that holds the writing end is gone.
    assert select.select([reader], [], [], 30)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)
