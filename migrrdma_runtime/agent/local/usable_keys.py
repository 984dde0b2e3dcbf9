"""Which remote keys of a process the other ends of its connections are told.

Those that they can use: of the regions in the protection domain of the queue pair that they face, with rights for
others. By any other key they had a remote access error before the move, and must have one after it. A key that an end
was not told it sends as it is, and to the new device that number is

- nothing, or the key of a region in another domain or without such rights: the device refuses it;
- the key of a region that this end may reach, under its own virtual key. That would be another region than the one the
  application has named. So this end is told that the number stands for `NO_KEY`.

No region that is registered later has such a number as its key: the guest gives nobody a key that is another region's
virtual one in its context, or was (guest/objects/mr.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from migrrdma_runtime.agent.local.guest_objects import Domain

_FOR_OTHERS = 2 | 4 | 8 | 1 << 8 | 1 << 9
"""``IBV_ACCESS_REMOTE_WRITE``, ``REMOTE_READ``, ``REMOTE_ATOMIC``, ``FLUSH_GLOBAL`` and ``FLUSH_PERSISTENT``."""

NO_KEY = 0
"""The rkey of no region that others may reach: drivers give it to those without rights for others, or to none."""


_MEMBERS = itemgetter("context", "pd", "access", "vrkey", "prkey")


def by_domain(records: Iterable[Mapping[str, Any]]) -> dict[Domain, list[tuple[int, int]]]:
    """Virtual and physical keys for each protection domain's other ends; from a guest's answer to LIST_MRS."""
    virtual: dict[int, set[int]] = {}
    told: dict[Domain, list[tuple[int, int]]] = {}
    for context, pd, access, vrkey, prkey in map(_MEMBERS, records):
        virtual.setdefault(context, set()).add(vrkey)
        if access & _FOR_OTHERS:
            told.setdefault((context, pd), []).append((vrkey, prkey))
    for (context, _), pairs in told.items():
        own = {vrkey for vrkey, _ in pairs}
        misleading = {prkey for _, prkey in pairs} & (virtual[context] - own)
        pairs += [(number, NO_KEY) for number in sorted(misleading)]
    return told
