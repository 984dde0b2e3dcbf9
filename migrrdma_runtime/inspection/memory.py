"""The memory of another process, and the places in it that its guest library publishes."""

from __future__ import annotations

import os
import re
import struct
import time
from types import TracebackType

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import InspectionError

_WORDS = b"migrrdma inspection".ljust(24, b"\0")
_HEAD = struct.Struct("=24sQII")
_PLACE = struct.Struct("=24sQ")
_VERSION = 1
_MOST_PLACES = 256
_LARGEST_DATA = 1 << 22
"""Bytes of one mapping of the library's data that are searched; it has a few pages."""

_PATIENCE_S = 5.0
"""For everything that is read of a process: lists that lie may lead to each other for ever."""

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (r...) [0-9a-f]+ \S+ \d+ +(.*)$", re.M)


class Memory:
    """A process's memory, read through ``/proc/PID/mem``; an address that is not there is an `InspectionError`."""

    def __init__(self, pid: int, patience: float = _PATIENCE_S) -> None:
        self._pid = pid
        self._until = time.monotonic() + patience
        try:
            self._file = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InspectionError(f"process {pid} cannot be looked into: {error.strerror}") from error

    def __enter__(self) -> Memory:
        """Nothing: it is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        os.close(self._file)

    def read(self, address: int, size: int) -> bytes:
        """So many bytes at an address."""
        if time.monotonic() > self._until:
            raise InspectionError(f"what process {self._pid} has in its memory has no end")
        try:
            found = os.pread(self._file, size, address)
        except (OSError, OverflowError) as error:
            raise InspectionError(f"process {self._pid} has nothing at address {address:#x}") from error
        if len(found) < size:
            raise InspectionError(f"process {self._pid} has less than {size} bytes at address {address:#x}")
        return found

    def word(self, address: int) -> int:
        """Eight bytes: an address, a token."""
        return int.from_bytes(self.read(address, 8), "little")

    def number(self, address: int) -> int:
        """Four bytes."""
        return int.from_bytes(self.read(address, 4), "little")

    def text(self, address: int, size: int) -> str:
        """A string that ends with a zero or after so many bytes."""
        page = 4096 - address % 4096  # what follows may not be there
        found = self.read(address, min(size, page))
        if b"\0" not in found and size > page:
            found += self.read(address + page, size - page)
        return found.partition(b"\0")[0].decode(errors="replace")


def places(pid: int, memory: Memory) -> dict[str, int] | None:
    """Addresses and offsets by their names in ``guest/shadow/inspection.c``; None: there is no guest library."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (as the rest)
            mappings = _MAPPING.findall(file.read())
    except OSError as error:
        raise InspectionError(f"process {pid} cannot be looked into: {error.strerror}") from error
    ours = [
        (int(begin, 16), int(end, 16))
        for begin, end, _, name in mappings
        if name.removesuffix(" (deleted)").endswith(f"/{paths.GUEST_LIBRARY}")
    ]
    for begin, end in ours:
        data = memory.read(begin, min(end - begin, _LARGEST_DATA))
        at = data.find(_WORDS)
        while at >= 0:
            if found := _parse(data, at, begin + at):
                return found
            at = data.find(_WORDS, at + 1)
    if ours:
        raise InspectionError(f"process {pid} has a guest library that does not say where its things are")
    return None


def _parse(data: bytes, at: int, address: int) -> dict[str, int] | None:
    """What may begin at a place in the data; of which a process can have 100,000, so that nothing is copied."""
    first = at + _HEAD.size
    if len(data) < first:
        return None
    _, itself, version, count = _HEAD.unpack_from(data, at)
    if itself != address or version != _VERSION or count > _MOST_PLACES:
        return None
    if len(data) < first + count * _PLACE.size:
        return None
    found = (_PLACE.unpack_from(data, first + number * _PLACE.size) for number in range(count))
    return {name.partition(b"\0")[0].decode("ascii", "replace"): value for name, value in found}
