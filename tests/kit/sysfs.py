"""The kernel's view of RDMA devices, as files of a test's own."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from migrrdma_runtime.base import gids


def make_sysfs(root: Path, gid: str, device: str = "rxe0") -> Path:
    """``/sys/class/infiniband`` with one device: a link-local GID and this one."""
    port = root / device / "ports" / "1"
    (port / "gids").mkdir(parents=True)
    (port / "gid_attrs" / "types").mkdir(parents=True)
    link_local = gids.from_address(ipaddress.ip_address("fe80::1"))
    for index, value in enumerate((link_local, gid, "0000:" * 7 + "0000")):
        (port / "gids" / str(index)).write_text(value + "\n")
        (port / "gid_attrs" / "types" / str(index)).write_text("RoCE v2\n")
    return root
