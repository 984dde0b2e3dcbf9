"""Images from Debian packages: a node's disk, kernel and initrd, and the container images it carries.

No container registry is involved: a container image is a Debian minbase file system with a few packages, put
into the archive format that ``docker load`` reads. Everything is built in a temporary directory and renamed
when complete, so an interrupted build leaves nothing that a later one would take for finished.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from .plan import (
    CONTAINER_PACKAGES,
    DATA_MTU,
    GOLDEN,
    NODES,
    RELEASES,
    Places,
    Release,
    container_image,
)
from .steps import run_logged, step

_DISK_SIZE = "12G"  # sparse; room for Docker's layers and checkpoints
_NODE_FILES = Path(__file__).resolve().parents[1] / "node"
_MMDEBSTRAP_SECONDS = 900


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


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def container_archive(places: Places, release: str) -> Path:
    """Build (or find) ``rdma-tools:RELEASE`` as an archive for ``docker load``."""
    archive = places.images / f"rdma-tools-{release}-{_key(release, *CONTAINER_PACKAGES)}.tar"
    if archive.exists():
        return archive
    with (
        step(f"container image {container_image(release)} from Debian packages"),
        tempfile.TemporaryDirectory(dir=places.images, prefix=".rdma-tools-") as work,
    ):
        layer = Path(work) / "layer.tar"
        run_logged(
            ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(CONTAINER_PACKAGES)}",
             *_LEAN, release, layer],
            places.build / "logs" / f"rdma-tools-{release}.log",
            _MMDEBSTRAP_SECONDS,
        )  # fmt: skip
        unfinished = Path(work) / "image.tar"
        _write_docker_archive(unfinished, layer, container_image(release))
        unfinished.rename(archive)
    return archive


# Documentation and translations are most of a minimal Debian's files, and every one costs time in emulation.
_LEAN = (
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
)


def _write_docker_archive(archive: Path, layer: Path, tag: str) -> None:
    """One layer in the format of ``docker save`` (the "combined image JSON" of moby's image spec v1.2)."""
    with layer.open("rb") as stream:
        diff_id = hashlib.file_digest(stream, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Cmd": ["/bin/sh"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{diff_id}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": [layer_name]}]).encode()
    with tarfile.open(archive, "w") as tar:
        for name, content in ((config_name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
        tar.add(layer, layer_name)


def node_image(places: Places) -> NodeImage:
    """Where the image that today's recipe makes is, or will be."""
    release = places.release
    recipe = [path.read_text() for path in (Path(__file__), *sorted(_NODE_FILES.iterdir()))]
    key = _key(release.name, *release.packages, *CONTAINER_PACKAGES, str(DATA_MTU), *recipe)
    return NodeImage(places.images / f"node-{release.name}-{key}")


def build_node_image(places: Places) -> NodeImage:
    """Build (or find) the disk image of ``places.release``; it carries every release's container image."""
    release = places.release
    image = node_image(places)
    if image.directory.exists():
        return image
    places.images.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=places.images, prefix=".node-") as work,
        ThreadPoolExecutor() as pool,
    ):
        unfinished = NodeImage(Path(work) / "image")
        unfinished.directory.mkdir()
        root = Path(work) / "root"
        archives = [pool.submit(container_archive, places, name) for name in RELEASES]
        with step(f"file system of a {release.name} node from Debian packages"):
            _bootstrap(places, release, root)
            _customise(root, unfinished)
        carried = root / "var/lib/rack/images"
        carried.mkdir(parents=True)
        for archive in archives:
            shutil.copy(archive.result(), carried)
        with step("disk image"):
            for name, target in (("vmlinuz", unfinished.kernel), ("initrd.img", unfinished.initrd)):
                shutil.copy((root / name).resolve(), target)
            run_logged(
                [
                    "mke2fs",
                    "-q",
                    "-t",
                    "ext4",
                    "-E",
                    "lazy_itable_init=1",
                    "-d",
                    root,
                    unfinished.disk,
                    _DISK_SIZE,
                ],
                places.build / "logs" / f"mke2fs-{release.name}.log",
                300,
            )
        unfinished.directory.rename(image.directory)
    return image


def remove_unused(places: Places) -> None:
    """Remove the node images that no rack of this build directory was made from: each is gigabytes."""
    used = {Path(record.read_text()).parent for record in places.build.glob("racks/*/golden")}
    for directory in places.images.glob("node-*"):
        if directory not in used:
            shutil.rmtree(directory)


def _bootstrap(places: Places, release: Release, root: Path) -> None:
    run_logged(
        ["mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase",
         f"--include={','.join(release.packages)}", *_LEAN, release.name, root],
        places.build / "logs" / f"node-{release.name}.log",
        _MMDEBSTRAP_SECONDS,
    )  # fmt: skip


_DAEMON_JSON = """\
{
  "experimental": true,
  "features": {"cdi": true}
}
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


def _customise(root: Path, image: NodeImage) -> None:
    """What makes a Debian a rack node: the login key, its network, Docker with checkpoints switched on."""
    run_logged(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rack", "-f", image.ssh_key],
        image.directory / "ssh-keygen.log",
        30,
    )
    files = {
        "etc/rack-node": f"{GOLDEN.name} {GOLDEN.index}\n",
        "etc/rack-mtu": f"{DATA_MTU}\n",
        "etc/hosts": "127.0.0.1 localhost\n"
        + "".join(f"{node.data_address} {node.name}\n" for node in NODES),
        "etc/docker/daemon.json": _DAEMON_JSON,
        "root/daemon.json": _DAEMON_JSON,  # what an uninstall must give back
        "etc/cdi/rack.json": _CDI,
        "etc/modules-load.d/rack.conf": "rdma_rxe\nib_uverbs\nrdma_ucm\nmacvlan\noverlay\nbr_netfilter\n",
        "etc/ssh/sshd_config.d/rack.conf": "UseDNS no\nPermitRootLogin prohibit-password\nMaxSessions 64\n",
        "etc/systemd/journald.conf.d/rack.conf": "[Journal]\nStorage=volatile\n",
        "root/.ssh/authorized_keys": image.ssh_key.with_suffix(".pub").read_text(),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "root/.ssh").chmod(0o700)
    for name, mode, target in (
        ("rack-node", 0o755, "usr/local/sbin/rack-node"),
        ("rack-node.service", 0o644, "etc/systemd/system/rack-node.service"),
    ):
        shutil.copy(_NODE_FILES / name, root / target)
        (root / target).chmod(mode)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    (wants / "rack-node.service").symlink_to("/etc/systemd/system/rack-node.service")
    # Timers that would wake an idle machine, and make two runs of one test differ.
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer",
                 "man-db.timer", "dpkg-db-backup.timer"):  # fmt: skip
        mask = root / "etc/systemd/system" / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    # The project's own environment; the distribution's packages are what it imports.
    run_logged(
        ["chroot", root, "python3", "-m", "venv", "--system-site-packages", "--without-pip", "/opt/migrrdma"],
        image.directory / "venv.log",
        60,
    )
