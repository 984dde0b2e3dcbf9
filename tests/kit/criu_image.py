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
DEVICE, EVENTS = 1, 2
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


def _record(type_: int, payload: bytes) -> bytes:
    return RECORD.pack(type_, RECORD.size + len(payload)) + payload


def image(*records: File | Mapping | bytes) -> bytes:
    """A whole image; bytes stand for a record as they are."""
    packed = [record if isinstance(record, bytes) else record.record() for record in records]
    return sealed(b"".join(packed), len(packed))


def sealed(body: bytes, count: int) -> bytes:
    """``body`` behind a header that fits it."""
    return HEADER.pack(MAGIC, 1, HEADER.size, count, zlib.crc32(body), len(body)) + body


def parse(data: bytes) -> list[File | Mapping]:
    """The records of a good image."""
    magic, version, size, count, crc, length = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    assert (magic, version, size, length, crc) == (MAGIC, 1, HEADER.size, len(body), zlib.crc32(body))
    records = list(_records(body))
    assert len(records) == count
    return records


def _records(body: bytes) -> Iterator[File | Mapping]:
    while body:
        type_, size = RECORD.unpack_from(body)
        fields = (FILE if type_ == 1 else MAPPING).unpack(body[RECORD.size : size])
        values: list[Any] = [value.rstrip(b"\0") if isinstance(value, bytes) else value for value in fields]
        yield File(*values) if type_ == 1 else Mapping(*values)
        body = body[size:]
