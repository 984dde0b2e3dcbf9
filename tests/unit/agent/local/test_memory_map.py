"""Which registered memory a process has protected."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from migrrdma_runtime.agent.local import memory_map
from migrrdma_runtime.agent.local.guest_objects import MemoryRegion

PAGE = mmap.PAGESIZE
LOCAL_WRITE, REMOTE_READ, ON_DEMAND = 1, 4, 1 << 6

MAPS = """\
55d0c0000000-55d0c0002000 r--p 00000000 fe:00 1234       /usr/bin/some thing
7f0000000000-7f0000002000 rw-p 00000000 00:00 0
7f0000002000-7f0000003000 rw-s 00000000 00:01 77         /dev/shm/x (deleted)
7f0000004000-7f0000005000 ---p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]
""".splitlines()


@pytest.mark.parametrize(
    ("address", "length", "access", "forbidden"),
    [
        (0x7F0000000000, 0x3000, LOCAL_WRITE, False),  # over two mappings that join
        (0x7F0000000010, 0x10, LOCAL_WRITE, False),
        (0x7F0000000000, 0x3001, LOCAL_WRITE, False),  # and nothing behind them
        (0x7EFFFFFFFFFF, 0x10, LOCAL_WRITE, False),  # nor before
        (0x7F0000003000, 1, LOCAL_WRITE, False),
        (0x7F0000002000, 0x2001, LOCAL_WRITE, True),  # over a hole and what is protected
        (0x7F0000004000, 1, LOCAL_WRITE, True),
        (0x7F0000004000, 1, REMOTE_READ, True),
        (0x7F0000004FFF, 1, REMOTE_READ, True),
        (0x7F0000005000, 1, REMOTE_READ, False),
        (0x55D0C0000000, 0x2000, REMOTE_READ, False),
        (0x55D0C0000000, 0x2000, LOCAL_WRITE, True),
        (0x1000, 1, REMOTE_READ, False),
        (0, 0, LOCAL_WRITE, False),
        (0, (1 << 64) - 1, LOCAL_WRITE | ON_DEMAND, False),
        (0x7F0000004000, 1, LOCAL_WRITE | ON_DEMAND, False),
    ],
)
def test_what_is_mapped_of_a_region_needs_its_rights(
    address: int, length: int, access: int, forbidden: bool
) -> None:
    assert memory_map.parse(MAPS).forbids(MemoryRegion(address, length, access, 7)) is forbidden


def test_memory_that_this_process_protects_is_found_and_what_it_unmaps_is_not() -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(None, 3 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, private, -1, 0)

    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def forbids() -> bool:
        mapped = memory_map.read(Path("/proc"), os.getpid())
        assert mapped is not None
        return mapped.forbids(MemoryRegion(address, 3 * PAGE, LOCAL_WRITE, 7))

    assert not forbids()
    libc.mprotect(address + PAGE, PAGE, mmap.PROT_READ)
    assert forbids()
    libc.munmap(address + PAGE, PAGE)
    assert not forbids()


def test_a_process_that_has_ended_has_no_map(tmp_path: Path) -> None:
    assert memory_map.read(tmp_path, 12) is None
