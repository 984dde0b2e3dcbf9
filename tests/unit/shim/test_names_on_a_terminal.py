"""What a container's process is called reaches the terminal of who checkpoints it, by CRIU's log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import CheckpointError
from migrrdma_runtime.criu.log import CriuLog
from migrrdma_runtime.shim import argv, runtime_log

# As a plugin might have it that takes a name from /proc/PID/status, where only \n and \\ are escaped.
LINE = (
    "(00.01)  Error (migrrdma_plugin): process 7 (\x1b]0;pwn\x07\x1b[2J) holds an RDMA device but runs without "
    "libmigrrdma.so\n"
)


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_name_moves_the_cursor_of_whoever_checkpoints(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], form: str
) -> None:
    path = tmp_path / "dump.log"
    log = CriuLog(str(path))
    path.write_text(LINE)
    error = CheckpointError(f"checkpoint of c failed: {'; '.join(log.errors())} (CRIU's log: {path})")
    engine = tmp_path / "log.json"
    line = ["--log", str(engine), "--log-format", form, "checkpoint", "c"]
    runtime_log.error(argv.parse(line), str(error))
    shown = capfdbinary.readouterr().err.decode().rstrip("\n")
    assert shown.isprintable(), shown
    if form == "json":
        assert json.loads(engine.read_text())["msg"].isprintable()
