"""The build-id of a shared library: the name a version of the guest library is kept under.

It is what CRIU compares when it restores a process. One note is read from one 64-bit little-endian file; a
dependency on an ELF package for these lines would weigh more than they do.
"""

from __future__ import annotations

import struct

from migrrdma_runtime.base.errors import InstallError

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3


def read(image: bytes, name: str) -> str:
    """The build-id in hexadecimal; ``name`` is for the error."""
    try:
        found = _find(image)
    except struct.error as error:
        raise InstallError(f"{name} is cut short") from error
    if found is None:
        raise InstallError(f"{name} has no build-id; link it with --build-id")
    return found


def _find(image: bytes) -> str | None:
    if not image.startswith(_ELF64_LITTLE):
        return None
    (headers,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for header in range(headers, headers + size * count, size):
        kind, _flags, offset, _vaddr, _paddr, length = struct.unpack_from("<IIQQQQ", image, header)
        (align,) = struct.unpack_from("<Q", image, header + 48)
        if kind == _PT_NOTE and (found := _find_note(image[offset : offset + length], max(align, 4))):
            return found
    return None


def _find_note(notes: bytes, align: int) -> str | None:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + name_size]
        content = at + _round_up(12 + name_size, align)
        if kind == _NT_GNU_BUILD_ID and name == b"GNU\0":
            return notes[content : content + size].hex()
        at = content + _round_up(size, align)
    return None


def _round_up(size: int, align: int) -> int:
    return (size + align - 1) // align * align
