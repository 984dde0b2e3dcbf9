"""What a CRIU holds stands still while the runtime takes back what that CRIU has done, however it died."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
pid, tell, hear = os.environ["MIGRRDMA_DEATH_WATCH"].split()
with open(f"/proc/{pid}/fd/{tell}", "wb", 0) as telling, open(f"/proc/{pid}/fd/{hear}", "rb", 0) as hearing:
    telling.write(b"%d\\n" % os.getpid())
    assert hearing.read(1)
ptrace = ctypes.CDLL(None).ptrace
held = int(sys.argv[1])
assert ptrace(0x4206, held, None, None) == 0  # PTRACE_SEIZE
assert ptrace(0x4207, held, None, None) == 0  # PTRACE_INTERRUPT
os.waitpid(held, 0x40000000)
signal.signal(signal.SIGUSR1, lambda *_: None)
os.kill(os.getpid(), signal.SIGUSR1)  # one that it lives through
exec(sys.argv[2])
"""
"""As the plugin, then as CRIU."""

_RUNTIME = """
import json, os, signal, sys, time
from pathlib import Path
from migrrdma_runtime.shim import child
from migrrdma_runtime.shim.death_watch import VARIABLE, DeathWatch
from migrrdma_runtime.shim.tracee import EVENT_EXIT, Tracee

held, counter, when, seen = sys.argv[1], Path(sys.argv[2]), sys.argv[3], []
look, go_on = Tracee.stop, Tracee.go_on

def kill_it_there(criu):
    os.kill(criu._pid, signal.SIGKILL)
    while (look(criu) or [0])[0] != EVENT_EXIT:
        pass

def stop(criu):
    if when == "before the look" and look(criu) == (0, signal.SIGUSR1):
        kill_it_there(criu)
    return look(criu)

def go_on_after_the_look(criu, event, number):
    if when == "after the look" and number == signal.SIGUSR1:
        kill_it_there(criu)
    go_on(criu, event, number)

Tracee.stop, Tracee.go_on = stop, go_on_after_the_look

def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

def number():
    return int(counter.read_text() or 0)

def at_death(criu, has_let_go):
    before = number()
    time.sleep(0.05)  # fifty steps of one that runs
    seen.append([state(criu), state(held), number() - before, has_let_go])

with DeathWatch(at_death) as watch:
    status = child.run("/bin/sh", ["-c", '"$@"; exit $?', "runc", *sys.argv[4:]], meanwhile=watch.begin)
watch._thread.join(20)
print(json.dumps([os.waitstatus_to_exitcode(status), seen, watch._thread.is_alive(), VARIABLE in os.environ]))
"""
"""A process of its own, as the runtime is: the signals that it waits for must not go to other threads."""


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """Where what is held counts."""
    return tmp_path / "counter"


@pytest.fixture
def held(counter: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", _HELD.format(counter=str(counter))])
    _counts_on(counter)
    yield process
    process.kill()
    process.wait()


def _number(counter: Path) -> int:
    return int(counter.read_text() or 0) if counter.exists() else 0


def _counts_on(counter: Path) -> None:
    beyond, deadline = _number(counter), time.monotonic() + 20
    while _number(counter) <= beyond:
        assert time.monotonic() < deadline
        time.sleep(0.001)  # a step of its own: nothing tells of another process's file


def _run(held: subprocess.Popen[bytes], counter: Path, *low_level: str, when: str = "") -> list[Any]:
    """The exit code, as a shell has it; what was seen at a death; whether it is still waited for, or asked for.

    ``when``: CRIU is killed where a signal that it lives through has stopped it, before or after that is looked at.
    """
    words = [sys.executable, "-c", _RUNTIME, str(held.pid), str(counter), when, *low_level]
    said = subprocess.run(words, stdout=subprocess.PIPE, timeout=60, check=True).stdout
    found: list[Any] = json.loads(said)
    return found


def _criu(held: subprocess.Popen[bytes], end: str) -> list[str]:
    return [sys.executable, "-c", _CRIU, str(held.pid), end]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_what_is_held_stands_until_everything_is_taken_back(
    held: subprocess.Popen[bytes], counter: Path, number: signal.Signals
) -> None:
    found = _run(held, counter, *_criu(held, f"os.kill(os.getpid(), {int(number)})"))
    assert found == [128 + number, [["t", "t", 0, False]], False, False]
    _counts_on(counter)


def test_one_that_has_let_go_what_it_restored_has_said_so(
    held: subprocess.Popen[bytes], counter: Path
) -> None:
    end = "open(f'/proc/{pid}/fd/{tell}', 'wb', 0).write(b'let go\\n'); os.kill(os.getpid(), signal.SIGKILL)"
    assert _run(held, counter, *_criu(held, end)) == [137, [["t", "t", 0, True]], False, False]


def test_one_that_is_killed_when_a_signal_has_stopped_it_is_not_missed(
    held: subprocess.Popen[bytes], counter: Path
) -> None:
    found = _run(held, counter, *_criu(held, "sys.exit(3)"), when="before the look")
    assert found == [128 + signal.SIGKILL, [["t", "t", 0, False]], False, False]
    _counts_on(counter)


def test_of_one_that_has_died_unseen_the_low_level_runtime_hears_afterwards(
    held: subprocess.Popen[bytes], counter: Path
) -> None:
    code, ((criu, *_),), *rest = _run(held, counter, *_criu(held, "sys.exit(3)"), when="after the look")
    assert [code, criu, *rest] == [128 + signal.SIGKILL, "Z", False, False]


def test_nothing_is_taken_back_of_one_that_ends_by_itself(
    held: subprocess.Popen[bytes], counter: Path
) -> None:
    assert _run(held, counter, *_criu(held, "sys.exit(3)")) == [3, [], False, False]
    _counts_on(counter)


def test_one_that_never_speaks_is_waited_for_by_nobody(held: subprocess.Popen[bytes], counter: Path) -> None:
    """A CRIU without our plugin, or a low-level runtime that fails before it has one."""
    assert _run(held, counter, sys.executable, "-c", "exit(4)") == [4, [], False, False]
