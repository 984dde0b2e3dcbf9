"""What a process has mapped, and which of its memory regions no device could register again.

A region needs the right to read its memory, and to write where its device may write. What is not mapped at all is not
asked for: the guest registers what is left of a region (guest/objects/mr_left.c).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.agent.local.guest_objects import MemoryRegion
from migrrdma_runtime.base import kernel_file

Range = tuple[int, int]
"""Addresses from the first to the one after the last."""


@dataclass(frozen=True)
class MemoryMap:
    """The mappings of one process: joined ranges in the order of their addresses."""

    mapped: list[Range]
    """Of whatever rights."""

    readable: list[Range]
    writable: list[Range]

    def forbids(self, region: MemoryRegion) -> bool:
        """Whether a part of the region is mapped, and without the rights that the region needs."""
        if not region.is_pinned:
            return False
        allowed = self.writable if region.is_written else self.readable
        start, end = region.address, region.address + region.length
        return _bytes_within(self.mapped, start, end) != _bytes_within(allowed, start, end)


def _bytes_within(ranges: list[Range], start: int, end: int) -> int:
    """How many bytes of these ranges lie there."""
    at = max(bisect_right(ranges, (start, 1 << 64)) - 1, 0)
    found = 0
    while at < len(ranges) and ranges[at][0] < end:
        found += max(min(ranges[at][1], end) - max(ranges[at][0], start), 0)
        at += 1
    return found


def read(proc: Path, pid: int) -> MemoryMap | None:
    """The process's mappings; None: they cannot be read, as it has ended."""
    lines = kernel_file.lines(f"{proc}/{pid}/maps")
    return parse(lines) if lines else None


def files(proc: Path, pid: int) -> list[str]:
    """The paths of the files that the process has mapped, each once, as the process sees them; none if it has ended."""
    lines = [line.split(None, 5) for line in kernel_file.lines(f"{proc}/{pid}/maps", "replace")]
    return list(dict.fromkeys(line[5] for line in lines if len(line) > 5 and line[5].startswith("/")))


def parse(lines: Iterable[str]) -> MemoryMap:
    """The lines of ``/proc/PID/maps``."""
    mapped: list[Range] = []
    readable: list[Range] = []
    writable: list[Range] = []
    for line in lines:
        addresses, permissions, *_ = line.split(None, 2)
        start, end = (int(one, 16) for one in addresses.split("-"))
        _join(mapped, start, end)
        if "r" in permissions:
            _join(readable, start, end)
            if "w" in permissions:
                _join(writable, start, end)
    return MemoryMap(mapped, readable, writable)


def _join(ranges: list[Range], start: int, end: int) -> None:
    if ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], end)
    else:
        ranges.append((start, end))
