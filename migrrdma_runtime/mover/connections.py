"""The established TCP connections of a container: where it goes they would end, or be taken along."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

_ESTABLISHED = "01"
"""``TCP_ESTABLISHED`` of include/net/tcp_states.h, as /proc/net/tcp has it."""


def established(pid: int) -> list[str]:
    """``host:port`` of the other ends, in the network of a process; none within the container, none of the host's."""
    if Path(f"/proc/{pid}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
        return []
    found = []
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 3 and words[3] == _ESTABLISHED:
                address, port = _other_end(words[2])
                if not address.is_loopback:
                    found.append(f"{address}:{port}")
    return found


def _other_end(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """An address as the kernel prints it: 32-bit words in the host's order."""
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address, int(port, 16)
