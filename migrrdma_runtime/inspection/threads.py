"""The threads of a process as the kernel sees them: names, states, and the system calls that they are in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from migrrdma_runtime.base import kernel_file

_MOST = 4096
"""Threads that are looked at."""

STATES = {
    "R": "running",
    "S": "asleep",
    "D": "in the kernel, not to be interrupted",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "ended",
}


@dataclass(frozen=True)
class KernelThread:
    """One thread."""

    tid: int
    tid_inside: int
    """As the process's own PID namespace numbers it."""
    name: str
    state: str
    """A letter of ``STATES``."""
    syscall: str
    """The system call that it is in; empty: it runs, or cannot be asked."""


def threads_of(pid: int) -> list[KernelThread]:
    """Those that the process has at this moment; none: it has ended."""
    try:
        numbers = sorted(int(one) for one in os.listdir(f"/proc/{pid}/task"))[:_MOST]  # noqa: PTH208 (numbers only)
    except OSError:
        return []
    return [found for number in numbers if (found := _look(pid, number)) is not None]


def _look(pid: int, tid: int) -> KernelThread | None:
    lines = kernel_file.lines(f"/proc/{pid}/task/{tid}/status", "replace")  # its name is printed
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if not status:
        return None
    return KernelThread(
        tid,
        int(status.get("NSpid", str(tid)).split()[-1]),
        status.get("Name", ""),
        status.get("State", "?")[:1],
        _syscall("".join(kernel_file.lines(f"/proc/{pid}/task/{tid}/syscall"))),
    )


def _syscall(text: str) -> str:
    """The name in what the kernel says: ``running``, or the call's number and arguments, or -1."""
    number = text.partition(" ")[0].strip()
    return _names().get(int(number), f"system call {number}") if number.isdecimal() else ""


@cache
def _names() -> dict[int, str]:
    """Of the system calls; where python-ptrace is not installed, none."""
    try:
        from ptrace.syscall import SYSCALL_NAMES
    except ImportError:
        return {}
    return dict(SYSCALL_NAMES)
