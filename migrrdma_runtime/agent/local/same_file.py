"""Whether descriptors of two processes are one open file, by ``kcmp(2)``: as those are that a child has inherited."""

from __future__ import annotations

import ctypes
import os
import platform
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache, cmp_to_key

_KCMP_FILE = 0

_NUMBERS = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
"""The system call, which the C library has no function for."""


_EQUAL, _LESS, _GREATER = 0, 1, 2

_MOST, _MOST_OTHERS = 1 << 10, 1 << 14
"""Descriptors that are compared: the agent's loop waits. A guest has 256 devices open at most, and a container many
guests."""

End = tuple[int, int]
"""A process and a descriptor of it."""


class _Unknown(Exception):  # noqa: N818 (it is no error: the kernel does not say, or a process has gone)
    """Which of two open files comes first cannot be told."""


def are_among(some: Sequence[End], others: Sequence[End]) -> bool:
    """Whether each of some is the same open file as one of the others; not if the kernel does not say, or one is gone.

    The kernel has an order of open files, so that not each has to be compared with each.
    """
    if len(some) > _MOST or len(others) > _MOST_OTHERS:
        return False
    key = cmp_to_key(_compare)
    try:
        known = sorted(others, key=key)
        for one in some:
            at = bisect_left(known, key(one), key=key)
            if at == len(known) or _compare(one, known[at]) != 0:
                return False
    except _Unknown:
        return False
    return True


def _compare(one: End, other: End) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise _Unknown
    arguments = (number, one[0], other[0], _KCMP_FILE, one[1], other[1])
    result = int(_libc().syscall(*(ctypes.c_long(each) for each in arguments)))
    if result not in (_EQUAL, _LESS, _GREATER):
        raise _Unknown
    return {_EQUAL: 0, _LESS: -1, _GREATER: 1}[result]


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


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
