"""A machine's disk, kernel and initrd, made of a node's file system and of what only a machine needs."""

from __future__ import annotations

import lzma
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..bootstrap import recipe_key
from ..docker_state import build_docker_state, docker_state
from ..filesystem import build_node_root, mask, node_root, write_files
from ..plan import DATA_MTU, Places
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
    key = recipe_key(node_root(places).name, docker_state(places).directory.name, str(DATA_MTU), *recipe)
    return NodeImage(places.images / f"node-{places.release.name}-{key}")


def build_node_image(places: Places) -> NodeImage:
    """Build (or find) the disk image of ``places.release``; its Docker holds every release's container image."""
    image = node_image(places)
    if image.directory.exists():
        return image
    docker = build_docker_state(places)
    logs = places.build / "logs"
    with step("disk image"), tempfile.TemporaryDirectory(dir=places.images, prefix=".node-") as work:
        unfinished = NodeImage(Path(work) / "image")
        unfinished.directory.mkdir()
        root = Path(work) / "root"
        copy_log = logs / f"copy-{places.release.name}.log"
        # Hard links: what is added and changed here is written anew, and the original keeps what it has.
        run_logged(["cp", "-al", build_node_root(places), root], copy_log, 120)
        run_logged(["cp", "-al", "-T", docker.state, root / "var/lib/docker"], copy_log, 120)
        for layer in docker.images.iterdir():
            run_logged(
                ["cp", "-al", "-T", layer, root / "var/lib/docker/overlay2" / layer.name / "diff"],
                copy_log,
                120,
            )
        _customise(root, unfinished, logs / f"modules-{places.release.name}.log")
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
    used = {Path(record.read_text()).parent for record in places.build.glob("racks/*/origin")}
    for directory in places.images.glob("node-*"):
        if directory not in used:
            shutil.rmtree(directory)


_MASKED = (
    # nobody sits there
    "getty@tty1.service", "serial-getty@ttyS0.service", "systemd-logind.service",
    # devices that the machine does not have, and programs that it does not run
    "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service", "systemd-pstore.service",
    "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount", "systemd-binfmt.service",
    "sys-fs-fuse-connections.mount", "rdma-ndd.service",
)  # fmt: skip

_MASKED_GENERATORS = (
    "systemd-debug-generator", "systemd-getty-generator", "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator", "systemd-rc-local-generator", "systemd-run-generator",
    "systemd-ssh-generator", "systemd-system-update-generator", "systemd-tpm2-generator",
)  # fmt: skip
"""Each is a program that every ``systemctl daemon-reload`` starts."""


_LOADED_BY_CONTAINERS = (
    "af_packet_diag", "inet_diag", "netlink_diag", "nf_conntrack_netlink", "nf_tables", "nft_chain_nat", "nft_compat",
    "tcp_diag", "tun", "udp_diag", "unix_diag", "xfrm_user", "xt_addrtype", "xt_conntrack", "xt_mark", "xt_MASQUERADE",
    "xt_nat", "xt_tcpudp",
)  # fmt: skip
"""Modules that the kernel loads when Docker and CRIU ask for what they do."""


def _customise(root: Path, image: NodeImage, log: Path) -> None:
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
            # rack.conf in modules-load.d has all that is used.
            "etc/rdma/modules/rdma.conf": "",
            "etc/rdma/modules/infiniband.conf": "",
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
    mask(root, *_MASKED)
    generators = root / "etc/systemd/system-generators"
    generators.mkdir()
    for generator in _MASKED_GENERATORS:
        (generators / generator).symlink_to("/dev/null")
    for name, mode, target in (
        ("rack-node", 0o755, "usr/local/sbin/rack-node"),
        ("rack-node.service", 0o644, "etc/systemd/system/rack-node.service"),
        ("modules.conf", 0o644, "etc/modules-load.d/rack.conf"),
        ("few-devices.conf", 0o644, "etc/systemd/system/systemd-udev-trigger.service.d/rack.conf"),
    ):
        (root / target).parent.mkdir(exist_ok=True)
        shutil.copy(_NODE_FILES / name, root / target)
        (root / target).chmod(mode)
    _unpack_modules(root, log)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    (wants / "rack-node.service").symlink_to("/etc/systemd/system/rack-node.service")


def _unpack_modules(root: Path, log: Path) -> None:
    """Decompress the modules that a node loads: emulated, that is most of what loading one takes."""
    [version] = [folder.name for folder in (root / "lib/modules").iterdir()]
    used = [line for line in (_NODE_FILES / "modules.conf").read_text().split("\n") if line.isidentifier()]
    modprobe = ["modprobe", "-S", version, "--show-depends", "-a", *used, *_LOADED_BY_CONTAINERS]
    run_logged(["chroot", root, *modprobe], log, 60)
    for name in re.findall(r"^insmod /(\S+)\.xz", log.read_text(), re.MULTILINE):
        packed = root / f"{name}.xz"
        if packed.exists():  # modules have dependencies in common
            (root / name).write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()
    run_logged(["chroot", root, "depmod", version], log, 60)
