"""Which rack is meant: the emulated one with the kernel's own RDMA, or the fast one of namespaces."""

from __future__ import annotations

import os

from .errors import RackError
from .namespaces.rack import FastRack
from .plan import DEFAULT_RELEASE, RELEASES, Places
from .qemu.rack import EmulatedRack
from .rack import Rack

RACKS: dict[str, type[Rack]] = {rack.kind: rack for rack in (EmulatedRack, FastRack)}
"""Every rack there is, by what ``RACK`` calls it."""


def choose_rack(release: str | None = None, kind: str | None = None) -> Rack:
    """The rack of this checkout that the arguments name, or else ``$RELEASE`` and ``$RACK``, or else the defaults."""
    name = release or os.environ.get("RELEASE") or DEFAULT_RELEASE
    if name not in RELEASES:
        raise RackError(f"there is no release {name!r}; the rack runs {', '.join(RELEASES)}")
    kind = kind or os.environ.get("RACK") or EmulatedRack.kind
    if kind not in RACKS:
        raise RackError(f"there is no rack {kind!r}; there are {', '.join(RACKS)}")
    return RACKS[kind](Places(RELEASES[name], kind))
