"""What a container mounts that lives on its host, and outlives it: volumes and folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mount:
    """One of them."""

    target: str
    """Where the container has it: the same on every host."""
    source: Path
    """Where it is on this host."""
    name: str
    """The volume's; empty: it is a folder of the host's."""
    writable: bool

    @property
    def called(self) -> str:
        """What an `Obstacle` calls it that says that it is missing."""
        return self.name or str(self.source)


def mounts_of(found: list[dict[str, Any]], volume: Callable[[str], dict[str, Any] | None]) -> list[Mount]:
    """From ``Mounts`` of ``docker inspect`` or ``podman inspect``: those that are folders on this host.

    ``volume`` is the engine's inspect of one: with options it is another file system, which is mounted when it is used.
    """
    mounts = [
        Mount(
            str(one["Destination"]),
            Path(one["Source"]),
            str(one.get("Name") or "") if one["Type"] == "volume" else "",
            bool(one.get("RW")),
        )
        for one in found
        if one.get("Type") in ("volume", "bind") and one.get("Source") and Path(one["Source"]).is_dir()
    ]
    return [one for one in mounts if not one.name or _is_plain(volume(one.name))]


def _is_plain(found: dict[str, Any] | None) -> bool:
    return found is not None and found.get("Driver") == "local" and not found.get("Options")
