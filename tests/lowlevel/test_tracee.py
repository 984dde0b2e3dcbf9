"""A traced process stands and goes on as it would untraced, and says where it stands."""

from __future__ import annotations

import os
import signal
import subprocess

from migrrdma_runtime.shim.tracee import EVENT_EXIT, Tracee

_OF_ALL = 128
"""PTRACE_EVENT_STOP: the whole process is stopped, or no longer."""


def _next(tracee: Tracee) -> tuple[int, int] | None:
    assert tracee.end() is None
    return tracee.stop()


def test_it_stays_stopped_until_it_is_continued_and_ends_in_its_last_stop() -> None:
    process = subprocess.Popen(["sleep", "600"])
    tracee = Tracee(process.pid)
    for number, stops in [
        (signal.SIGSTOP, [(0, signal.SIGSTOP), (_OF_ALL, signal.SIGSTOP)]),
        (signal.SIGCONT, [(_OF_ALL, signal.SIGTRAP), (0, signal.SIGCONT)]),
        (signal.SIGKILL, [(EVENT_EXIT, signal.SIGTRAP)]),
    ]:
        process.send_signal(number)
        for stop in stops:
            assert _next(tracee) == stop
            if stop[0] == EVENT_EXIT:
                assert tracee.dies_of_signal()
            tracee.go_on(*stop)
    end = tracee.end()
    assert end is not None
    assert (end.si_code, end.si_status) == (os.CLD_KILLED, signal.SIGKILL)
    tracee.take()
    process.wait()
