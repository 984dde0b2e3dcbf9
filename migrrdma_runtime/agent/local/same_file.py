"""Whether descriptors of two processes are one open file, by ``kcmp(2)``: as those are that a child has inherited."""

from __future__ import annotations

import ctypes
import os
import platform

_KCMP_FILE = 0

_NUMBERS = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
"""The system call, which the C library has no function for."""


def is_same_file(pid: int, fd: int, other_pid: int, other_fd: int) -> bool:
    """Whether both are the same open file; not if the kernel does not say, or one is gone."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (number, pid, other_pid, _KCMP_FILE, fd, other_fd)
    return int(libc.syscall(*(ctypes.c_long(one) for one in arguments))) == 0


def descriptors(proc: str, pid: int) -> dict[int, str]:
    """What a process has open, by number; nothing of one that has ended."""
    found: dict[int, str] = {}
    try:
        with os.scandir(f"{proc}/{pid}/fd") as entries:
            for entry in entries:
                try:
                    found[int(entry.name)] = os.readlink(entry.path)  # noqa: PTH115 (no Path for each)
                except OSError:
                    continue  # closed meanwhile
    except OSError:
        return {}
    return found
