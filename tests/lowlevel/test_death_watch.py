"""What a CRIU holds stands still while the runtime takes back what that CRIU has done, however it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from migrrdma_runtime.shim import child
from migrrdma_runtime.shim.death_watch import VARIABLE, DeathWatch

_HELD = """
import time
number = 0
while True:
    number += 1
    open({counter!r}, "w").write(str(number))
    time.sleep(0.001)
"""

_CRIU = """
import ctypes, os, signal, sys
pid, tell, hear = os.environ[{variable!r}].split()
with open(f"/proc/{{pid}}/fd/{{tell}}", "wb", 0) as telling, open(f"/proc/{{pid}}/fd/{{hear}}", "rb", 0) as hearing:
    telling.write(b"%d\\n" % os.getpid())
    assert hearing.read(1)
ptrace = ctypes.CDLL(None).ptrace
held = int(sys.argv[1])
assert ptrace(0x4206, held, None, None) == 0  # PTRACE_SEIZE
assert ptrace(0x4207, held, None, None) == 0  # PTRACE_INTERRUPT
os.waitpid(held, 0x40000000)
signal.signal(signal.SIGUSR1, lambda *_: None)
os.kill(os.getpid(), signal.SIGUSR1)  # one that it lives through
{end}
"""
"""As the plugin, then as CRIU."""


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """Where what is held counts."""
    return tmp_path / "counter"


@pytest.fixture
def held(counter: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", _HELD.format(counter=str(counter))])
    _counts_on(counter, 0)
    return process


def _number(counter: Path) -> int:
    return int(counter.read_text() or 0) if counter.exists() else 0


def _counts_on(counter: Path, beyond: int) -> None:
    deadline = time.monotonic() + 20
    while _number(counter) <= beyond:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _state(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def _run(held: subprocess.Popen[bytes], end: str, at_death: Callable[[int], None]) -> int:
    """Returns the exit code, as a shell has it: CRIU is the child of a low-level runtime, which waits for it."""
    script = _CRIU.format(variable=VARIABLE, end=end)
    low_level = ["-c", '"$@"; exit $?', "runc", sys.executable, "-c", script, str(held.pid)]
    with DeathWatch(at_death) as watch:
        return os.waitstatus_to_exitcode(child.run("/bin/sh", low_level, meanwhile=watch.begin))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_what_is_held_stands_until_everything_is_taken_back(
    held: subprocess.Popen[bytes], counter: Path, number: signal.Signals
) -> None:
    seen: list[tuple[str, int]] = []

    def at_death(_: int) -> None:
        before = _number(counter)
        time.sleep(0.05)  # fifty steps of one that runs
        seen.append((_state(held), _number(counter) - before))

    try:
        assert _run(held, f"os.kill(os.getpid(), {int(number)})", at_death) == 128 + number
        assert seen == [("t", 0)]
        _counts_on(counter, _number(counter))
    finally:
        held.kill()
        held.wait()


def test_nothing_is_taken_back_of_one_that_ends_by_itself(
    held: subprocess.Popen[bytes], counter: Path
) -> None:
    called: list[bool] = []
    try:
        assert _run(held, "sys.exit(3)", lambda _: called.append(True)) == 3
        assert not called
        _counts_on(counter, _number(counter))
    finally:
        held.kill()
        held.wait()


def test_one_that_never_speaks_is_waited_for_by_nobody() -> None:
    """A CRIU without our plugin, or a low-level runtime that fails before it has one."""
    with DeathWatch(lambda _: None) as watch:
        assert (
            os.waitstatus_to_exitcode(child.run(sys.executable, ["-c", "exit(4)"], meanwhile=watch.begin))
            == 4
        )
    watch._thread.join(20)
    assert not watch._thread.is_alive()
    assert VARIABLE not in os.environ
