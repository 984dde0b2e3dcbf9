"""What a kernel with an RDMA driver shows of its device in /sys, laid out in a folder.

``layout`` writes plain files and links: ``class/infiniband/rxe0``, ``class/infiniband_verbs/uverbs0``,
``dev/char/10:229``. The program ``appear`` puts them over a host's /sys.
"""

from __future__ import annotations

from pathlib import Path

GID_TABLE = 16
"""Entries that a port's table shows."""

NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def layout(folder: Path, device: str, node: str, number: str, guid: str) -> Path:
    """Lay out ``device`` (rxe0), opened by ``node`` (uverbs0) of that number ("10:229"); returns its own folder."""
    ibdev = folder / "devices" / "rdma" / "infiniband" / device
    port = ibdev / "ports" / "1"
    for name, text in {
        "node_type": "1: CA",
        "node_guid": guid,
        "sys_image_guid": guid,
        "node_desc": device,
        "fw_ver": "0.0.0",
    }.items():
        _write(ibdev / name, text)
    for name, text in {
        "state": "4: ACTIVE",
        "phys_state": "5: LinkUp",
        "rate": "100 Gb/sec (4X EDR)",
        "lid": "0x0",
        "lid_mask_count": "0",
        "sm_lid": "0x0",
        "sm_sl": "0",
        "cap_mask": "0x00010000",
        "link_layer": "Ethernet",
        "pkeys/0": "0xffff",
    }.items():
        _write(port / name, text)
    for index in range(GID_TABLE):
        _write(port / "gids" / str(index), NO_GID)
        # The kernel answers EINVAL for the type of an unused entry; an empty file says as much to who reads it.
        (port / "gid_attrs" / "types").mkdir(parents=True, exist_ok=True)
        (port / "gid_attrs" / "types" / str(index)).write_text("")
    verbs = folder / "devices" / "rdma" / "infiniband_verbs" / node
    for name, text in {"ibdev": device, "dev": number, "abi_version": "1"}.items():
        _write(verbs / name, text)
    for kind, target in (("infiniband", ibdev), ("infiniband_verbs", verbs)):
        (folder / "class" / kind).mkdir(parents=True, exist_ok=True)
        _link(folder / "class" / kind / target.name, f"../../devices/rdma/{kind}/{target.name}")
        _link(target / "subsystem", f"../../../../class/{kind}")
    _write(folder / "class" / "infiniband_verbs" / "abi_version", "6")
    (folder / "dev" / "char").mkdir(parents=True, exist_ok=True)
    _link(folder / "dev" / "char" / number, f"../../devices/rdma/infiniband_verbs/{node}")
    return ibdev


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
