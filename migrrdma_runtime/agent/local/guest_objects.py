"""What a guest says of the objects it holds, and what it is told of their new places; ``guest.py`` asks and tells."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

_XRC_SEND, _XRC_RECV = 9, 10
"""``IBV_QPT_XRC_SEND`` and ``IBV_QPT_XRC_RECV``."""

_CONNECTED = (2, 3, _XRC_SEND, _XRC_RECV)
"""``IBV_QPT_RC`` and ``IBV_QPT_UC``, too: what has one other end."""

_DATAGRAMS = 4
"""``IBV_QPT_UD``."""

_READY_TO_RECEIVE, _SEND_QUEUE_ERROR, _ERROR = 2, 5, 6
"""``IBV_QPS_RTR`` and ``IBV_QPS_SQE``: the first and the last state in which a queue pair has another end; ``ERR``."""


Domain = tuple[int, int]
"""A protection domain of a process, or an XRC domain: the context, and the number that the guest gives it."""


class GuestState(IntEnum):
    """``enum mig_state``."""

    RUNNING = 1
    QUIESCING = 2
    QUIESCED = 3
    PARKED = 4
    REBUILT = 5


@dataclass(frozen=True)
class QPName:
    """A queue pair as the guest calls it."""

    context: int
    vqpn: int


@dataclass(frozen=True)
class QueuePair:
    """A queue pair as the guest describes it."""

    name: QPName
    pqpn: int
    next_pqpn: int
    type: int
    state: int
    dest_vqpn: int
    dest_pqpn: int
    port: int
    sgid_index: int
    sgid: str
    dgid: str
    receives: int
    pd: int
    """Its protection domain, as the guest counts those of a context."""

    @property
    def domain(self) -> Domain:
        """In which memory its other end can reach, with the right keys."""
        return self.name.context, self.pd

    @property
    def is_connected(self) -> bool:
        """Whether a partner may be at the other end."""
        return self.type in _CONNECTED and _READY_TO_RECEIVE <= self.state <= _SEND_QUEUE_ERROR

    @property
    def may_be_connected(self) -> bool:
        """Whether it is of the kind that has one other end, and has none yet."""
        return self.type in _CONNECTED and self.state < _READY_TO_RECEIVE

    @property
    def has_failed(self) -> bool:
        """Whether it is in the error state: what it was connected to does not matter to it any more."""
        return self.type in _CONNECTED and self.state == _ERROR

    @property
    def names_srqs(self) -> bool:
        """Whether what it sends names shared receive queues of the other end."""
        return self.type == _XRC_SEND

    @property
    def is_target(self) -> bool:
        """Whether what comes to it names shared receive queues here."""
        return self.type == _XRC_RECV

    @property
    def takes_datagrams(self) -> bool:
        """Whether anybody may send to it who knows its number."""
        return self.type == _DATAGRAMS

    @property
    def end(self) -> tuple[str, int]:
        """The connection's end here, as the network knows it."""
        return self.sgid, self.pqpn

    @property
    def other_end(self) -> tuple[str, int]:
        """The other end of the connection, as the network knows it."""
        return self.dgid, self.dest_pqpn


class AddressKind(IntEnum):
    """``enum mig_address_kind``."""

    OWN = 1
    PEER = 2
    FORMER = 3
    BLIND = 4
    KNOWN = 5
    TOLD = 6


@dataclass(frozen=True)
class Address:
    """What a process sends datagrams from or to, where it is now; of its own GID also what the application sees."""

    context: int
    kind: AddressKind
    port: int
    index: int
    vgid: str
    gid: str


@dataclass(frozen=True)
class Context:
    """An open device."""

    id: int
    device: str
    real_device: str
    ports: int


_WRITTEN = 1 | 2 | 8 | 16
"""``IBV_ACCESS_LOCAL_WRITE``, ``REMOTE_WRITE``, ``REMOTE_ATOMIC`` and ``MW_BIND``: with any of them the kernel demands
memory that may be written (``ib_access_writable()``)."""

_ON_DEMAND = 1 << 6
"""``IBV_ACCESS_ON_DEMAND``."""


class MemoryRegion(NamedTuple):
    """A memory region as the guest describes it; a tuple, as there may be 100,000 of them."""

    address: int
    length: int
    access: int
    lkey: int

    @property
    def is_written(self) -> bool:
        """Whether the device may write to it."""
        return bool(self.access & _WRITTEN)

    @property
    def is_pinned(self) -> bool:
        """Whether its memory had to be there when it was registered: not where pages are looked for on demand."""
        return not self.access & _ON_DEMAND

    def __str__(self) -> str:
        """How a message names it."""
        return f"{self.length} bytes at 0x{self.address:x} (lkey 0x{self.lkey:x})"


@dataclass(frozen=True)
class Inventory:
    """What a guest holds, and why it cannot be moved if it cannot."""

    counts: dict[str, int]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class GidChange:
    """A GID that the application uses and its place on the new device."""

    port: int
    index: int
    new_port: int
    new_index: int


@dataclass(frozen=True)
class Question:
    """A process is about to connect a queue pair, and asks where the one is that its application names."""

    ident: int
    gid: str
    qpn: int
    from_vgid: str
    from_gid: str
    from_vqpn: int
    from_qpn: int

    @property
    def asker_differs(self) -> bool:
        """Whether who asks is not where its application says it is: then its other end has to ask for it, too."""
        return (self.from_vgid, self.from_vqpn) != (self.from_gid, self.from_qpn)


@dataclass(frozen=True)
class There:
    """Where a queue pair is, and by which keys its memory is reached; without an error."""

    gid: str
    qpn: int
    peer: str = "0"
    keys: tuple[tuple[int, int], ...] = ()
    error: int = 0
    text: str = ""


@dataclass(frozen=True)
class Connect:
    """What a queue pair needs to know of its new other end."""

    name: QPName
    dest_pqpn: int
    dgid: str
    sq_psn: int
    rq_psn: int
    peer: str
