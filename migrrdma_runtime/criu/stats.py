"""What CRIU measured of itself: ``stats-dump`` and ``stats-restore``, which it writes into its working directory.

They are protocol buffers (CRIU's ``images/stats.proto``) behind two magic numbers and a size. Two messages of
unsigned numbers are not worth a library that every restore would have to import.
"""

import os
import struct

_HEADER = struct.Struct("<III")
_MAGIC = (0x55105940, 0x57093306)
"""``IMG_SERVICE_MAGIC`` and ``STATS_MAGIC`` in CRIU's ``magic.h``."""

_MAX_SIZE = 4096
_DUMP, _RESTORE = 1, 2
_FREEZING, _FROZEN = 1, 2
_RESTORE_TIME = 4


def dump_steps(work_dir: str, since: float) -> "list[dict[str, object]]":
    """``freeze``: stopping the processes; ``frozen``: how long they then stood still. None if CRIU says nothing."""
    found = _read(os.path.join(work_dir, "stats-dump"), _DUMP, since)
    if found is None:
        return []
    end, numbers = found
    freezing, frozen = numbers.get(_FREEZING, 0) / 1e6, numbers.get(_FROZEN, 0) / 1e6
    return [
        {"name": "freeze", "start": end - frozen - freezing, "seconds": freezing},
        {"name": "frozen", "start": end - frozen, "seconds": frozen},
    ]


def restore_steps(work_dir: str, since: float) -> "list[dict[str, object]]":
    """``criu``: from CRIU's first fork to the restored processes' first instruction."""
    found = _read(os.path.join(work_dir, "stats-restore"), _RESTORE, since)
    if found is None:
        return []
    end, numbers = found
    seconds = numbers.get(_RESTORE_TIME, 0) / 1e6
    return [{"name": "criu", "start": end - seconds, "seconds": seconds}]


def _read(path: str, kind: int, since: float) -> "tuple[float, dict[int, int]] | None":
    """When the file was written, in seconds of the wall clock, and its numbers; None if it is not of this run."""
    try:
        # A FIFO of that name would have nothing to read; it is not to be waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            written = os.fstat(file.fileno()).st_mtime
            content = file.read(_MAX_SIZE) or b""
        *magic, size = _HEADER.unpack_from(content)
        if tuple(magic) != _MAGIC or written < since or _HEADER.size + size > len(content):
            return None
        message = _fields(content[_HEADER.size : _HEADER.size + size]).get(kind)
        if not isinstance(message, bytes):
            return None
        return written, {tag: value for tag, value in _fields(message).items() if isinstance(value, int)}
    except (OSError, ValueError, IndexError, struct.error):
        return None


def _fields(message: bytes) -> "dict[int, int | bytes]":
    """The fields of a protocol buffer that holds numbers and messages; ValueError or IndexError: it is not one."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 0:
            found[key >> 3] = value
        elif key & 7 == 2 and at + value <= len(message):
            found[key >> 3] = message[at : at + value]
            at += value
        else:
            raise ValueError(key)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(at)
