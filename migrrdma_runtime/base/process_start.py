"""When a process started: with its number, a name that no other process of this boot has. And if it is at its end."""

import os
import signal

_EXITING, _SIGNALED = 0x4, 0x400
"""``linux/sched.h``: it has begun to end; a signal is what it ends of."""


def look(pid: int, proc: str = "/proc") -> "tuple[str, int] | None":
    """Its state, one letter, and its start in clock ticks since the boot, by proc(5); None: there is no such one."""
    fields = _fields(pid, proc)
    return (fields[0], int(fields[19])) if fields else None


def parent(pid: int) -> int:
    """The number of its parent; 0: it has none in this pid namespace, or has ended."""
    fields = _fields(pid, "/proc")
    return int(fields[1]) if fields else 0


def is_dying(pid: int, proc: str = "/proc") -> bool:
    """Whether it is about to end, for whatever reason: it may not have come to that yet."""
    fields = _fields(pid, proc)
    if not fields or fields[0] in ("Z", "X") or int(fields[6]) & (_EXITING | _SIGNALED):
        return True
    try:
        threads = os.listdir(f"{proc}/{pid}/task")  # noqa: PTH208
        return any(_is_killed(f"{proc}/{pid}/task/{thread}/status") for thread in threads)
    except OSError:
        return True


def _is_killed(status: str) -> bool:
    """Whether a SIGKILL is on its way to this thread: the kernel sends it to each when it has a process killed."""
    with open(status, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        pending = [line.split()[1] for line in file if line.startswith("SigPnd:")]
    return bool(pending) and bool(int(pending[0], 16) >> (signal.SIGKILL - 1) & 1)


def _fields(pid: int, proc: str) -> "list[str]":
    """Of its ``stat``, from the state on; none: there is no such process."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (nor pathlib's cost)
            # The command's name, in parentheses, may hold anything, parentheses included.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return []
    return fields if len(fields) > 19 else []
