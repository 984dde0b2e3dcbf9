"""The first process of a rack's PID namespace: reaps what is left behind, and ends with everything that is in it.

A program for a bare interpreter: ``python -I -S keeper.py CGROUP OWNER``. It ends on SIGTERM, and when the process
behind the pidfd number OWNER (-1: none) has ended, so that tests that are killed leave no rack.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

_CGROUP_SECONDS = 5


def _reap() -> bool:
    """Collect every child that has ended; whether there are others."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _end_everything() -> None:
    """Kill all there is, and wait until it is gone; the init of a PID namespace is gone when its processes are."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _remove_cgroups(top: Path) -> None:
    """Remove a tree of cgroups without processes; the kernel may still be ending the last of them."""
    deadline = time.monotonic() + _CGROUP_SECONDS
    while top.exists() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def main() -> None:
    """Keep the rack."""
    cgroup, owner = Path(sys.argv[1]), int(sys.argv[2])
    wake, wakened = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    asked = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal asked
        asked = asked or number == signal.SIGTERM

    signal.set_wakeup_fd(wakened)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, on_signal)
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    if owner >= 0:
        poll.register(owner, select.POLLIN)
    print("ready", flush=True)
    while not asked:
        for fd, _ in poll.poll():
            if fd == owner:
                asked = True
            else:
                os.read(wake, 4096)
        _reap()
    _end_everything()
    _remove_cgroups(cgroup)


if __name__ == "__main__":
    main()
