"""Which remote keys of a process the other ends of its connections are told, and which numbers of its shared queues.

Those that they can use: of the regions in the protection domain of the queue pair that they face, with rights for
others. By any other key they had a remote access error before the move, and must have one after it. A key that an end
was not told it sends as it is, and to the new device that number is

- nothing, or the key of a region in another domain or without such rights: the device refuses it;
- the key of a region that this end may reach, under its own virtual key. That would be another region than the one the
  application has named. So this end is told that the number stands for `NO_KEY`.

No region that is registered later has such a number as its key: the guest gives nobody a key that is another region's
virtual one in its context, or was (guest/objects/mr.c).

Who sends by XRC is told the numbers of the shared receive queues in the XRC domain that it faces, likewise; and all
keys of the context: in which protection domain each is good is said by the queue that a request names, and seen to by
the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from migrrdma_runtime.agent.local.guest_objects import Domain
from migrrdma_runtime.wire.guest_messages import WIRE

_FOR_OTHERS = 2 | 4 | 8 | 1 << 8 | 1 << 9
"""``IBV_ACCESS_REMOTE_WRITE``, ``REMOTE_READ``, ``REMOTE_ATOMIC``, ``FLUSH_GLOBAL`` and ``FLUSH_PERSISTENT``."""

NO_KEY = 0
"""The rkey of no region that others may reach: drivers give it to those without rights for others, or to none."""


NO_SRQ = 0xFFFFFF
"""The number of no shared receive queue: no device has so many."""

_OF_SRQ = WIRE.constants["MIG_NUMBER_SRQ"]
_MEMBERS = itemgetter("context", "pd", "access", "vrkey", "prkey", "kind")

Numbers = list[tuple[int, int]]
"""Pairs of a virtual and a physical number."""


def by_domain(records: Iterable[Mapping[str, Any]]) -> dict[Domain, Numbers]:
    """Virtual and physical keys for each protection domain's other ends; from a guest's answer to LIST_MRS."""
    virtual: dict[int, set[int]] = {}
    told: dict[Domain, Numbers] = {}
    for context, pd, access, vrkey, prkey, kind in map(_MEMBERS, records):
        if kind == _OF_SRQ:
            continue
        virtual.setdefault(context, set()).add(vrkey)
        if access & _FOR_OTHERS:
            told.setdefault((context, pd), []).append((vrkey, prkey))
    for (context, _), pairs in told.items():
        # No look at all keys of the context for each: a process may have a domain for every key.
        misleading = {prkey for _, prkey in pairs if prkey in virtual[context]} - {
            vrkey for vrkey, _ in pairs
        }
        pairs += [(number, NO_KEY) for number in sorted(misleading)]
    return told


def srqs_by_domain(records: Iterable[Mapping[str, Any]]) -> dict[Domain, Numbers]:
    """Likewise, the shared receive queues of each XRC domain.

    Any other number that the device has given to one of them was that of none there before: a message that names it
    must go on being refused. One that is made after the move is given none of these.
    """
    told: dict[Domain, Numbers] = {}
    for context, pd, _, vsrqn, psrqn, kind in map(_MEMBERS, records):
        if kind == _OF_SRQ:
            told.setdefault((context, pd), []).append((vsrqn, psrqn))
    for pairs in told.values():
        misleading = {physical for _, physical in pairs} - {virtual for virtual, _ in pairs}
        pairs += [(number, NO_SRQ) for number in sorted(misleading)]
    return told
