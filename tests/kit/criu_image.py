"""``migrrdma.img`` as docs/criu.md describes it, written a second time so that the two can disagree."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

MAGIC = b"MIGRRDMA"
HEADER = struct.Struct("<8sIIIIQ")
RECORD = struct.Struct("<II")
FILE = struct.Struct("<IIIIiiiIII64s64s")
MAPPING = struct.Struct("<iiQQQIIII64s")
PROVED = struct.Struct("<ii")
DEVICE, EVENTS = 1, 2
VERSION = 2
PAGE = 4096


class File(NamedTuple):
    """One open file."""

    id: int = 1
    kind: int = DEVICE
    flags: int = 2
    state: int = 0
    pid: int = 4711
    vpid: int = 1
    fd: int = 4
    major: int = 231
    minor: int = 192
    reserved: int = 0
    node: bytes = b"uverbs0"
    ibdev: bytes = b"rxe0"

    def record(self) -> bytes:
        """As it stands in the image."""
        return _record(1, FILE.pack(*self))


class Mapping(NamedTuple):
    """One mapping of a device."""

    pid: int = 4711
    vpid: int = 1
    start: int = 0x7F0000000000
    length: int = 3 * PAGE
    offset: int = 5 * PAGE
    prot: int = 3
    reserved: int = 0
    major: int = 231
    minor: int = 192
    node: bytes = b"uverbs0"

    def record(self) -> bytes:
        """As it stands in the image."""
        return _record(2, MAPPING.pack(*self))


class Proved(NamedTuple):
    """A process whose guest can be restored before all else goes on."""

    pid: int = 4711
    vpid: int = 1

    def record(self) -> bytes:
        """As it stands in the image."""
        return _record(3, PROVED.pack(*self))


Record = File | Mapping | Proved


def _record(type_: int, payload: bytes) -> bytes:
    return RECORD.pack(type_, RECORD.size + len(payload)) + payload


def image(*records: Record | bytes, version: int = VERSION) -> bytes:
    """A whole image; bytes stand for a record as they are."""
    packed = [record if isinstance(record, bytes) else record.record() for record in records]
    return sealed(b"".join(packed), len(packed), version)


def sealed(body: bytes, count: int, version: int = VERSION) -> bytes:
    """``body`` behind a header that fits it."""
    return HEADER.pack(MAGIC, version, HEADER.size, count, zlib.crc32(body), len(body)) + body


def parse(data: bytes) -> list[Record]:
    """The records of a good image."""
    magic, version, size, count, crc, length = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    assert (magic, version, size, length, crc) == (MAGIC, VERSION, HEADER.size, len(body), zlib.crc32(body))
    records = list(_records(body))
    assert len(records) == count
    return records


_KINDS: dict[int, tuple[struct.Struct, type[Record]]] = {
    1: (FILE, File),
    2: (MAPPING, Mapping),
    3: (PROVED, Proved),
}


def _records(body: bytes) -> Iterator[Record]:
    while body:
        type_, size = RECORD.unpack_from(body)
        packing, kind = _KINDS[type_]
        fields = packing.unpack(body[RECORD.size : size])
        values: list[Any] = [value.rstrip(b"\0") if isinstance(value, bytes) else value for value in fields]
        yield kind(*values)
        body = body[size:]
