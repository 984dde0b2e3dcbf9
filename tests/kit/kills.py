"""Kill an action at any system call that changes the file system: each test of "whole or not at all"."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

Action = Callable[[], None]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_INTERRUPTED = 42
_CHANGES = {
    "os.chmod", "os.chown", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.setxattr", "os.symlink",
    "os.truncate", "shutil.rmtree",
}  # fmt: skip


def killed_at(number: int, action: Action, kill: signal.Signals = signal.SIGKILL) -> bool:
    """Do it in a process that dies at its ``number``-th change to the file system; whether it got that far."""
    child = os.fork()
    if child == 0:
        # A test run in a shell's background ignores it (POSIX, Shell & Utilities, 2.11), and so would its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        left = number

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            flags = arguments[2] if event == "open" else 0
            if event in _CHANGES or (isinstance(flags, int) and flags & _WRITING):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), kill)

        sys.addaudithook(watch)
        try:
            action()
        except KeyboardInterrupt:
            os._exit(_INTERRUPTED)
        except BaseException:  # noqa: BLE001 (a copy of the test process must not go on)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, kill, _INTERRUPTED << 8)
    return status != 0


def every_kill(action: Action, kill: signal.Signals = signal.SIGKILL, apart: int = 1) -> Iterator[int]:
    """Kill it at its first change, at another ``apart`` changes later, …; the caller restores order in between."""
    for number in itertools.count(1, apart):
        if not killed_at(number, action, kill):
            assert number > 10
            return
        yield number
