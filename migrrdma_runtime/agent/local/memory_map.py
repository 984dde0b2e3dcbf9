"""What a process has mapped, and which of its memory regions are not mapped any more.

The kernel pins registered memory, so that the device goes on with pages that the process has unmapped. It keeps no
address for them: nobody can dump them, and no device could register them again.
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

    readable: list[Range]
    writable: list[Range]

    def lacks(self, region: MemoryRegion) -> bool:
        """Whether a part of the region could not be registered: with the right to write where its device may write."""
        ranges = self.writable if region.is_written else self.readable
        at = bisect_right(ranges, (region.address, 1 << 64)) - 1
        return region.length > 0 and not (
            at >= 0 and ranges[at][0] <= region.address and region.address + region.length <= ranges[at][1]
        )


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
    readable: list[Range] = []
    writable: list[Range] = []
    for line in lines:
        addresses, permissions, *_ = line.split(None, 2)
        start, end = (int(one, 16) for one in addresses.split("-"))
        if "r" in permissions:
            _join(readable, start, end)
            if "w" in permissions:
                _join(writable, start, end)
    return MemoryMap(readable, writable)


def _join(ranges: list[Range], start: int, end: int) -> None:
    if ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], end)
    else:
        ranges.append((start, end))
