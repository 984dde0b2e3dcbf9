"""Remote keys as they travel between agents: base64 of pairs of 32-bit numbers, virtual and physical.

Those of one protection domain of a process are one map: what the queue pairs in it let their other ends reach. Each
device hands out its keys by itself, so that two of them may have the same.

100,000 of them as JSON numbers would be 2 MB to parse.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from itertools import chain

from migrrdma_runtime.base.errors import MessageError

_PAIR = struct.Struct("<II")

_BESIDE_A_WORD = 22
"""Bytes that a map takes in a message beside its pairs: its name, two pairs of quotes, a colon and a comma."""

Pairs = list[tuple[int, int]]


def map_name(process: str, context: int, pd: int) -> str:
    """What the map of a protection domain is called, among agents and by guests: 16 hexadecimal digits."""
    return hashlib.blake2b(f"{process} {context} {pd}".encode(), digest_size=8).hexdigest()


def srqs_of(name: str) -> str:
    """Beside that map, the one of the shared receive queues that messages of XRC name there, by their numbers."""
    return hashlib.blake2b(f"{name} srqs".encode(), digest_size=8).hexdigest()


def pack(pairs: Pairs) -> str:
    """The pairs as one word."""
    return base64.b64encode(struct.pack(f"<{2 * len(pairs)}I", *chain.from_iterable(pairs))).decode()


def packed_size(count: int, maps: int) -> int:
    """The most that so many pairs take in a message, in so many maps."""
    return (count * _PAIR.size + 2 * maps) // 3 * 4 + maps * _BESIDE_A_WORD


def unpack(packed: dict[str, str]) -> dict[str, Pairs]:
    """The pairs of each map; `MessageError` if a word holds no such pairs."""
    try:
        return {
            process: list(_PAIR.iter_unpack(base64.b64decode(word, validate=True)))
            for process, word in packed.items()
        }
    except (ValueError, struct.error) as error:
        raise MessageError(f"prepare: keys: {error}") from error
