"""What the kernel's dirty tracking says of a process's private memory: what was written to since CRIU's last look.

``clear_refs`` takes the marks away, and the next write to a page gives it one again (admin-guide/mm/soft-dirty.rst).
"""

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = os.sysconf("SC_PAGE_SIZE")
AT_ONCE = 1 << 15
"""Pages that are looked at together."""

# Of an entry in /proc/PID/pagemap (admin-guide/mm/pagemap.rst): byte 6 has bits 48 to 55, byte 7 the rest.
_SOFT_DIRTY, _OF_A_FILE, _PRESENT_OR_SWAPPED = 0x80, 0x20, 0xC0
_IS_MARKED = bytes(1 if byte & _SOFT_DIRTY else 0 for byte in range(256))
_IS_UNMARKED = bytes(0 if byte & _SOFT_DIRTY else 1 for byte in range(256))
_IS_ANONYMOUS = bytes(1 if byte & _PRESENT_OR_SWAPPED and not byte & _OF_A_FILE else 0 for byte in range(256))

_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ...(.) [0-9a-f]+ \S+ \d+ *(.*)$", re.M)
_SHARED = re.compile(rb"^Pss_Shmem: +(\d+) kB$", re.M)
_OF_HUGETLBFS = re.compile(rb"^VmFlags:.* ht(?: |$)")


class Pages:
    """The private pages of a process, by their numbers; what they hold can be written, too, while it stands still."""

    def __init__(self, pid: int) -> None:
        self._memory = -1
        self._pid = pid
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> "Pages":
        """Nothing: it is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self._pagemap)
        if self._memory >= 0:
            os.close(self._memory)

    def unmarked(self, first: int, count: int) -> bytes:
        """For each page 1 if it is there and has no mark."""
        return self._both(first, count, _IS_UNMARKED)

    def marked(self, first: int, count: int) -> int:
        """How many of these are there and have one."""
        return self._both(first, count, _IS_MARKED).count(1)

    def write_as_it_is(self, page: int) -> None:
        """Have the kernel see a write to a page, by which nothing changes."""
        if self._memory < 0:
            self._memory = os.open(f"/proc/{self._pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        os.pwrite(self._memory, os.pread(self._memory, 1, page * PAGE), page * PAGE)

    def _both(self, first: int, count: int, mark: bytes) -> bytes:
        entries = os.pread(self._pagemap, count * 8, first * 8)
        if len(entries) < count * 8:
            raise OSError(0, f"the kernel says nothing of the pages at {first * PAGE:#x}")
        one, other = entries[6::8].translate(mark), entries[7::8].translate(_IS_ANONYMOUS)
        both = int.from_bytes(one, "little") & int.from_bytes(other, "little")
        return both.to_bytes(count, "little")


def private_mappings(pid: int) -> "Iterator[tuple[int, int]]":
    """Where a process's private mappings begin and end, but for hugetlbfs, which CRIU's tracking leaves out."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        mappings = _MAPPING.findall(file.read())
    of_hugetlbfs: set[int] | None = None
    for begin, end, kind, name in mappings:
        low, high = int(begin, 16), int(end, 16)
        if kind != b"p" or name in (b"[vvar]", b"[vsyscall]", b"[vdso]"):
            continue
        if b"huge" in name:
            if of_hugetlbfs is None:
                of_hugetlbfs = _huge_mappings(pid)
            if low in of_hugetlbfs:
                continue
        yield low, high


def _huge_mappings(pid: int) -> "set[int]":
    """Where the mappings of hugetlbfs begin; asked only when a name sounds like one, as it walks all pages."""
    with open(f"/proc/{pid}/smaps", "rb") as file:
        content = file.read()
    found, last = set(), 0
    for line in content.splitlines():
        if match := _MAPPING.match(line):
            last = int(match[1], 16)
        elif _OF_HUGETLBFS.match(line):
            found.add(last)
    return found


def shared_bytes(pid: int) -> int:
    """A process's part of the memory that it shares with files in memory or with others, which is not tracked."""
    with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        found = _SHARED.search(file.read())
    return int(found[1]) << 10 if found else 0


def tracks() -> bool:
    """Whether this kernel tracks writes at all (``CONFIG_MEM_SOFT_DIRTY``): then what is new has its mark."""
    import mmap

    with mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE) as fresh, Pages(os.getpid()) as pages:
        fresh[0] = 1
        address = _address_of(fresh)
        return pages.marked(address // PAGE, 1) == 1


def _address_of(buffer: "object") -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # type: ignore[arg-type]
