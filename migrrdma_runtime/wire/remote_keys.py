"""The remote keys of a process as they travel between agents: base64 of pairs of 32-bit numbers, virtual and physical.

100,000 of them as JSON numbers would be 2 MB to parse.
"""

from __future__ import annotations

import base64
import struct

from migrrdma_runtime.base.errors import MessageError

_PAIR = struct.Struct("<II")

Pairs = list[tuple[int, int]]


def pack(pairs: Pairs) -> str:
    """The pairs as one word."""
    return base64.b64encode(b"".join(_PAIR.pack(*pair) for pair in pairs)).decode()


def packed_size(count: int) -> int:
    """The length of the word for so many pairs."""
    return (count * _PAIR.size + 2) // 3 * 4


def unpack(packed: dict[str, str]) -> dict[str, Pairs]:
    """The pairs of each process; `MessageError` if a word holds no such pairs."""
    try:
        return {
            process: list(_PAIR.iter_unpack(base64.b64decode(word, validate=True)))
            for process, word in packed.items()
        }
    except (ValueError, struct.error) as error:
        raise MessageError(f"prepare: keys: {error}") from error
