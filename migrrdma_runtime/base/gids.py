"""GIDs: 128 bits that name a port. Of RoCE v2 they are an IP address, which is how an agent is found."""

from __future__ import annotations

import ipaddress

from migrrdma_runtime.base.errors import MessageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PATTERN = "^([0-9a-f]{4}:){7}[0-9a-f]{4}$"
"""The one spelling used in messages, records and manifests: sysfs's."""


def from_bytes(gid: bytes) -> str:
    """The spelling of these 16 bytes."""
    # Not IPv6Address.exploded: since Python 3.13 it writes the end of an IPv4-mapped address in decimal.
    return gid.hex(":", 2)


def packed(gid: str) -> bytes:
    """The 16 bytes."""
    try:
        return ipaddress.IPv6Address(gid).packed
    except ValueError as error:
        raise MessageError(f"{gid!r:.60} is not a GID") from error


def address(gid: str) -> Address:
    """The IP address that a RoCE v2 GID is."""
    value = ipaddress.IPv6Address(packed(gid))
    return value.ipv4_mapped or value


def from_address(address: Address) -> str:
    """The RoCE v2 GID of this IP address."""
    if isinstance(address, ipaddress.IPv4Address):
        return from_bytes(b"\0" * 10 + b"\xff\xff" + address.packed)
    return from_bytes(address.packed)


def shown(gid: str) -> str:
    """The GID as people write it."""
    return str(address(gid))
