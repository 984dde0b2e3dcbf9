"""A machine's disk, kernel and initrd, made of a node's file system and of what only a machine needs."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..bootstrap import recipe_key
from ..container_images import container_archive
from ..filesystem import build_node_root, node_root, write_files
from ..plan import CONTAINER_PACKAGES, DATA_MTU, RELEASES, Places
from ..steps import run_logged, step

_DISK_SIZE = "12G"  # sparse; room for Docker's layers and checkpoints
_NODE_FILES = Path(__file__).resolve().parent / "node"


@dataclass(frozen=True)
class NodeImage:
    """A built node: everything QEMU needs to boot it, and the key that logs in as root."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The raw file system; every machine's disk is an overlay on it."""
        return self.directory / "disk.img"

    @property
    def kernel(self) -> Path:
        """The distribution's own kernel."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The distribution's own initrd."""
        return self.directory / "initrd.img"

    @property
    def ssh_key(self) -> Path:
        """The private key whose public half root's ``authorized_keys`` holds."""
        return self.directory / "id_ed25519"


def node_image(places: Places) -> NodeImage:
    """Where the image that today's recipe makes is, or will be."""
    recipe = [path.read_text() for path in (Path(__file__), *sorted(_NODE_FILES.iterdir()))]
    key = recipe_key(node_root(places).name, *CONTAINER_PACKAGES, str(DATA_MTU), *recipe)
    return NodeImage(places.images / f"node-{places.release.name}-{key}")


def build_node_image(places: Places) -> NodeImage:
    """Build (or find) the disk image of ``places.release``; it carries every release's container image."""
    image = node_image(places)
    if image.directory.exists():
        return image
    places.images.mkdir(parents=True, exist_ok=True)
    logs = places.build / "logs"
    with (
        tempfile.TemporaryDirectory(dir=places.images, prefix=".node-") as work,
        ThreadPoolExecutor() as pool,
    ):
        archives = [pool.submit(container_archive, places, name) for name in RELEASES]
        pristine = build_node_root(places)
        carried = [archive.result() for archive in archives]
        unfinished = NodeImage(Path(work) / "image")
        unfinished.directory.mkdir()
        with step("disk image"):
            root = Path(work) / "root"
            # Hard links: what is added and changed here is written anew, and the original keeps what it has.
            run_logged(["cp", "-al", pristine, root], logs / f"copy-{places.release.name}.log", 120)
            _customise(root, unfinished)
            for archive in carried:
                os.link(archive, root / "var/lib/rack/images" / archive.name)
            for name, target in (("vmlinuz", unfinished.kernel), ("initrd.img", unfinished.initrd)):
                shutil.copy((root / name).resolve(), target)
            run_logged(
                ["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", root, unfinished.disk, _DISK_SIZE],
                logs / f"mke2fs-{places.release.name}.log",
                300,
            )  # fmt: skip
        unfinished.directory.rename(image.directory)
    return image


def remove_unused(places: Places) -> None:
    """Remove the node images that no rack of this build directory was made from: each is gigabytes."""
    used = {Path(record.read_text()).parent for record in places.build.glob("racks/*/golden")}
    for directory in places.images.glob("node-*"):
        if directory not in used:
            shutil.rmtree(directory)


def _customise(root: Path, image: NodeImage) -> None:
    """What makes a node a machine: the login key, its network, its kernel's modules, fewer things that wake it."""
    run_logged(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rack", "-f", image.ssh_key],
        image.directory / "ssh-keygen.log",
        30,
    )
    write_files(
        root,
        {
            "etc/rack-mtu": f"{DATA_MTU}\n",
            "etc/modules-load.d/rack.conf": "rdma_rxe\nib_uverbs\nrdma_ucm\nmacvlan\noverlay\nbr_netfilter\n",
            # Without PAM there is no session, and no user's systemd that would begin and end with a connection.
            "etc/ssh/sshd_config.d/rack.conf": "UseDNS no\nUsePAM no\nPermitRootLogin prohibit-password\n"
            "MaxSessions 64\nHostKey /etc/ssh/ssh_host_ed25519_key\n",
            "etc/systemd/journald.conf.d/rack.conf": "[Journal]\nStorage=volatile\n",
            # Nothing has changed since the packages were installed: no first boot's ldconfig and hwdb.
            "etc/.updated": "",
            "var/.updated": "",
            "root/.ssh/authorized_keys": image.ssh_key.with_suffix(".pub").read_text(),
        },
    )
    (root / "root/.ssh").chmod(0o700)
    for key in (root / "etc/ssh").glob("ssh_host_*"):  # the package makes them; a node makes its own
        key.unlink()
    (root / "var/lib/rack/images").mkdir(parents=True)
    for unit in ("getty@tty1.service", "serial-getty@ttyS0.service"):  # nobody sits there
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for name, mode, target in (
        ("rack-node", 0o755, "usr/local/sbin/rack-node"),
        ("rack-node.service", 0o644, "etc/systemd/system/rack-node.service"),
    ):
        shutil.copy(_NODE_FILES / name, root / target)
        (root / target).chmod(mode)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    (wants / "rack-node.service").symlink_to("/etc/systemd/system/rack-node.service")
