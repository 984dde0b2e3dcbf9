"""Which registered memory a process has unmapped."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from migrrdma_runtime.agent.local import memory_map
from migrrdma_runtime.agent.local.guest_objects import MemoryRegion

PAGE = mmap.PAGESIZE
LOCAL_WRITE, REMOTE_READ = 1, 4

MAPS = """\
55d0c0000000-55d0c0002000 r--p 00000000 fe:00 1234       /usr/bin/some thing
7f0000000000-7f0000002000 rw-p 00000000 00:00 0
7f0000002000-7f0000003000 rw-s 00000000 00:01 77         /dev/shm/x (deleted)
7f0000004000-7f0000005000 ---p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]
""".splitlines()


@pytest.mark.parametrize(
    ("address", "length", "access", "lacks"),
    [
        (0x7F0000000000, 0x3000, LOCAL_WRITE, False),  # over two mappings that join
        (0x7F0000000010, 0x10, LOCAL_WRITE, False),
        (0x7F0000000000, 0x3001, LOCAL_WRITE, True),
        (0x7EFFFFFFFFFF, 0x10, LOCAL_WRITE, True),
        (0x7F0000003000, 1, LOCAL_WRITE, True),
        (0x7F0000004000, 1, LOCAL_WRITE, True),  # protected
        (0x7F0000004000, 1, REMOTE_READ, True),
        (0x55D0C0000000, 0x2000, REMOTE_READ, False),
        (0x55D0C0000000, 0x2000, LOCAL_WRITE, True),
        (0x1000, 1, REMOTE_READ, True),
        (0, 0, LOCAL_WRITE, False),
    ],
)
def test_a_region_needs_its_whole_range_mapped(address: int, length: int, access: int, lacks: bool) -> None:
    assert memory_map.parse(MAPS).lacks(MemoryRegion(address, length, access, 7)) is lacks


def test_memory_that_this_process_unmaps_is_missed() -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(None, 3 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, private, -1, 0)

    def lacks() -> bool:
        mapped = memory_map.read(Path("/proc"), os.getpid())
        assert mapped is not None
        return mapped.lacks(MemoryRegion(address, 3 * PAGE, LOCAL_WRITE, 7))

    assert not lacks()
    libc.munmap(address + PAGE, PAGE)
    assert lacks()


def test_a_process_that_has_ended_has_no_map(tmp_path: Path) -> None:
    assert memory_map.read(tmp_path, 12) is None
