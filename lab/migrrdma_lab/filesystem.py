"""A node's file system from Debian packages: the folder that the emulated rack makes disks of.

The namespace rack lays its overlays over the same folder, so nothing writes into it once it is built. It is built
under a temporary name and renamed when complete, so that an interrupted build leaves nothing that a later one would
take for finished.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path

from .bootstrap import DEBIAN_SECONDS, LEAN, MMDEBSTRAP, recipe_key
from .plan import NODES, Places
from .steps import run_logged, step

DAEMON_JSON = """\
{
  "experimental": true,
  "features": {"cdi": true}
}
"""
"""Docker's configuration on a node without this project, which an uninstall must give back."""

# dockerd hands each checkpoint's images to containerd's content store, on `checkpoint create` and again on `start`,
# and fails if they are there already. They are until the next collection, which by default comes long after.
_COLLECT_AT_ONCE = """
[plugins."io.containerd.gc.v1.scheduler"]
deletion_threshold = 1
pause_threshold = 0.5
schedule_delay = "0ms"
"""

_CDI = json.dumps(
    {
        "cdiVersion": "0.5.0",
        "kind": "rack/rdma",
        "devices": [
            {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/infiniband/uverbs0"}]}},
        ],
    }
)


_INITRAMFS = Path(__file__).resolve().parent / "initramfs-tools"
"""What the kernel's package finds there when it makes the initrd of the emulated machines."""


def node_root(places: Places) -> Path:
    """Where the file system that today's recipe makes is, or will be."""
    release = places.release
    files = sorted(path for path in _INITRAMFS.rglob("*") if path.is_file())
    recipe = [path.read_text() for path in (Path(__file__), *files)]
    key = recipe_key(release.name, *release.packages, *recipe, *LEAN)
    return places.images / f"root-{release.name}-{key}"


def build_node_root(places: Places) -> Path:
    """Build (or find) the file system of a node of ``places.release``; nobody may write into it."""
    root = node_root(places)
    if root.exists():
        return root
    release = places.release
    places.images.mkdir(parents=True, exist_ok=True)
    with (
        step(f"file system of a {release.name} node from Debian packages"),
        tempfile.TemporaryDirectory(dir=places.images, prefix=".root-") as work,
    ):
        unfinished = Path(work) / "root"
        logs = places.build / "logs"
        run_logged(
            [*MMDEBSTRAP, "--format=directory", "--variant=minbase",
             f"--include={','.join(release.packages)}", *LEAN,
             f"--essential-hook=copy-in {shlex.quote(str(_INITRAMFS))} /etc", release.name, unfinished],
            logs / f"node-{release.name}.log",
            DEBIAN_SECONDS,
        )  # fmt: skip
        _customise(unfinished, logs / f"venv-{release.name}.log")
        unfinished.rename(root)
    return root


def _customise(root: Path, log: Path) -> None:
    """What makes a Debian a rack node: the other nodes' names, and Docker with checkpoints switched on."""
    write_files(
        root,
        {
            "etc/hosts": "127.0.0.1 localhost\n"
            + "".join(f"{node.data_address} {node.name}\n" for node in NODES),
            "etc/docker/daemon.json": DAEMON_JSON,
            "root/daemon.json": DAEMON_JSON,  # what an uninstall must give back
            "etc/cdi/rack.json": _CDI,
            "etc/containerd/config.toml": (root / "etc/containerd/config.toml").read_text()
            + _COLLECT_AT_ONCE,
        },
    )
    # What would wake an idle node, and make two runs of one test differ; and what serves no container of ours.
    mask(
        root,
        "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "man-db.timer",
        "dpkg-db-backup.timer", "netavark-dhcp-proxy.service", "netavark-dhcp-proxy.socket",
        "netavark-firewalld-reload.service", "podman-auto-update.timer",
    )  # fmt: skip
    # The project's own environment; the distribution's packages are what it imports.
    run_logged(
        ["chroot", root, "python3", "-m", "venv", "--system-site-packages", "--without-pip", "/opt/migrrdma"],
        log,
        60,
    )


def mask(root: Path, *units: str) -> None:
    """Have systemd never start these units."""
    for unit in units:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def write_files(root: Path, files: dict[str, str]) -> None:
    """Write small text files below ``root``, with the folders they need."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a hard link to another tree's
        path.write_text(text)
