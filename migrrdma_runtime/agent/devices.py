"""The RDMA devices of this host: their GIDs from sysfs, their capabilities through pyverbs if it is there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrrdma_runtime.agent import gids
from migrrdma_runtime.errors import AgentError

ROCE_V2 = "RoCE v2"

_LIMITS = (
    "max_qp",
    "max_qp_wr",
    "max_sge",
    "max_cq",
    "max_cqe",
    "max_mr",
    "max_mr_size",
    "max_pd",
    "max_srq",
)
"""What the destination's device must have at least as much of."""


@dataclass(frozen=True)
class GidEntry:
    """One entry of a device's GID table."""

    port: int
    index: int
    gid: str
    type: str


class Devices:
    """The devices in sysfs."""

    def __init__(self, sysfs: Path = Path("/sys/class/infiniband")) -> None:
        self._sysfs = sysfs

    def names(self) -> list[str]:
        """Every device."""
        return sorted(path.name for path in self._sysfs.glob("*"))

    def gid_table(self, device: str) -> list[GidEntry]:
        """The used entries of the table, port by port."""
        entries = []
        for port in sorted((self._sysfs / device / "ports").glob("*"), key=lambda path: int(path.name)):
            for path in sorted((port / "gids").glob("*"), key=lambda path: int(path.name)):
                gid = _read(path)
                kind = _read(port / "gid_attrs" / "types" / path.name)
                if gid and kind and any(gids.packed(gid)):
                    entries.append(GidEntry(int(port.name), int(path.name), gid, kind))
        return entries

    def entry(self, device: str, port: int, index: int) -> GidEntry | None:
        """One entry of the table."""
        return next((e for e in self.gid_table(device) if (e.port, e.index) == (port, index)), None)

    def capabilities(self, device: str) -> dict[str, int]:
        """The device's limits; empty when pyverbs is not installed, and pre-flight then leaves them out."""
        try:
            return dict(_query(device))
        except ImportError:
            return {}

    def counterpart(self, device: str) -> str:
        """The device here that takes the place of one of that name elsewhere."""
        names = self.names()
        if device in names:
            return device
        if len(names) == 1:
            return names[0]
        raise AgentError(
            f"no RDMA device here can take the place of {device}: "
            + (f"there are {', '.join(names)}, none of that name" if names else "there is none at all")
        )

    def counterpart_of_gid(self, wanted: GidEntry, device: str) -> GidEntry:
        """The entry here that takes the place of one elsewhere.

        The very same GID if it has moved along (a container with an address of its own); else one of the same
        kind, at the same index if possible: both tables grow the same way on hosts that are set up alike.
        """
        table = self.gid_table(device)
        same = [entry for entry in table if entry.gid == wanted.gid and entry.type == wanted.type]
        alike = [entry for entry in table if entry.type == wanted.type and _family(entry) == _family(wanted)]
        alike.sort(key=lambda entry: (entry.port != wanted.port, entry.index != wanted.index, entry.index))
        if not (same or alike):
            raise AgentError(
                f"device {device} has no GID that could take the place of {gids.shown(wanted.gid)} "
                f"({wanted.type}): does its network interface have an address of that kind?"
            )
        return (same or alike)[0]


def shortfalls(needed: dict[str, int], offered: dict[str, int]) -> list[str]:
    """Which limits are lower there; a limit that either side does not know is not compared."""
    return [
        f"{name} is {offered[name]}, and {needed[name]} at the source"
        for name in _LIMITS
        if name in needed and name in offered and offered[name] < needed[name]
    ]


def _query(device: str) -> list[tuple[str, int]]:
    from pyverbs.device import Context  # type: ignore[import-not-found]

    with contextlib.closing(Context(name=device)) as context:
        attributes: Any = context.query_device()
        return [(name, int(getattr(attributes, name))) for name in _LIMITS]


def _family(entry: GidEntry) -> tuple[int, bool]:
    address = gids.address(entry.gid)
    return address.version, address.is_link_local


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # EINVAL for the type of an unused entry
        return ""
