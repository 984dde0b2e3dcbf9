"""The RDMA devices of this host: their GIDs from sysfs, their capabilities through pyverbs if it is there."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import AgentError

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
        """The used entries of the table, port by port.

        Soft-RoCE's table has 1,024 entries, nearly all of them unused: one short system call for each.
        """
        entries = []
        for port in sorted(_numbers(self._sysfs / device / "ports")):
            for index in sorted(_numbers(self._sysfs / device / "ports" / str(port) / "gids")):
                if entry := self.entry(device, port, index):
                    entries.append(entry)
        return entries

    def entry(self, device: str, port: int, index: int) -> GidEntry | None:
        """One entry of the table; None: it is unused."""
        folder = f"{self._sysfs}/{device}/ports/{port}"
        gid = _read(f"{folder}/gids/{index}")
        if not gid.strip("0:"):
            return None
        kind = _read(f"{folder}/gid_attrs/types/{index}")
        return GidEntry(port, index, gid, kind) if kind else None

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
    from pyverbs.device import Context

    with contextlib.closing(Context(name=device)) as context:
        attributes: Any = context.query_device()
        return [(name, int(getattr(attributes, name))) for name in _LIMITS]


def _family(entry: GidEntry) -> tuple[int, bool]:
    address = gids.address(entry.gid)
    return address.version, address.is_link_local


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if name.isdecimal()]  # noqa: PTH208 - no Path for each
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(file, 64).decode("ascii", "replace").strip()
    except OSError:  # EINVAL for the type of an unused entry
        return ""
    finally:
        os.close(file)
