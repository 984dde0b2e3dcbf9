"""What the rack consists of: nodes, addresses, packages and the places files go to."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

DATA_MTU = 9000
"""Soft-RoCE then uses an RDMA MTU of 4096, not 1024; docs/lab.md has the measured gain in emulation."""


@dataclass(frozen=True)
class Node:
    """One machine; ``index`` is the last part of its addresses and of its hardware addresses."""

    name: str
    index: int

    @property
    def management_address(self) -> str:
        """The IPv4 address that ssh uses."""
        return f"10.77.0.{self.index}"

    @property
    def data_address(self) -> str:
        """The IPv4 address of ``rd0``, and so the RoCEv2 GID of ``rxe0``."""
        return f"10.78.0.{self.index}"


SRC, DST, PEER = Node("src", 11), Node("dst", 12), Node("peer", 13)
NODES = (SRC, DST, PEER)
GOLDEN = Node("golden", 99)
"""The node of the fast rack on which the project is installed once, for all the others."""

GATEWAY = "10.77.0.1"
"""The namespace's own address on the management bridge."""


@dataclass(frozen=True)
class Release:
    """A Debian release a rack can run."""

    name: str
    extra_packages: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """What a node has installed, from the distribution alone."""
        return (
            # a machine that boots, has a network and can be reached
            "linux-image-amd64", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "openssh-server",
            "iputils-ping", "procps",
            # containers
            "docker.io", "containerd", "runc", "crun", "criu", "iptables", "podman",
            # RDMA
            "rdma-core", "perftest", "ibverbs-providers", "ibverbs-utils", "rdmacm-utils",
            # what this project imports on a host, as the distribution carries it
            "python3-cryptography", "python3-docker", "python3-grpcio", "python3-installer",
            "python3-jsonschema", "python3-prometheus-client", "python3-ptrace", "python3-pyverbs", "python3-rich",
            "python3-typer", "python3-venv",
            # finding out why
            "strace", "tcpdump",
            *self.extra_packages,
        )  # fmt: skip


RELEASES = {
    "trixie": Release("trixie", ("docker-cli",)),
    # Its kernel has AppArmor on, and Docker 20.10 then insists on the parser.
    "bookworm": Release("bookworm", ("apparmor",)),
}
DEFAULT_RELEASE = "trixie"

CONTAINER_PACKAGES = (
    "ibverbs-providers", "ibverbs-utils", "iproute2", "iputils-ping", "perftest", "python3-pyverbs",
    "rdmacm-utils",
)  # fmt: skip
"""The container image ``rdma-tools``; one per release, so that images differ from the node's libraries."""


APPLICATION_IMAGE = "rdma-apps:trixie"
APPLICATION_PACKAGES = (
    *CONTAINER_PACKAGES, "libcurl4t64", "libfabric-bin", "mpich", "openmpi-bin", "python3-numpy", "ucx-utils",
)  # fmt: skip
"""What the tests of real applications run in; what comes as a Python wheel is mounted into it."""

OLDER_APPLICATION_IMAGE = "rdma-apps:bookworm"
OLDER_APPLICATION_PACKAGES = (
    *CONTAINER_PACKAGES, "g++", "libgloo-dev", "python3-numpy", "python3-uvloop",
)  # fmt: skip
"""For those whose wheel is one for Python 3.11, and for a program that is compiled with what the release has."""


def container_image(release: str) -> str:
    """The image's name in every node's Docker."""
    return f"rdma-tools:{release}"


@dataclass(frozen=True)
class Places:
    """Where one rack keeps its files; two checkouts, releases or kinds of rack share images and nothing else."""

    release: Release
    kind: str = "emulated"

    @property
    def build(self) -> Path:
        """Everything that is slow to make; ``$MIGRRDMA_LAB_DIR`` moves it."""
        return Path(os.environ.get("MIGRRDMA_LAB_DIR") or REPOSITORY / "build" / "lab").resolve()

    @property
    def with_applications(self) -> bool:
        """Whether nodes have the images of applications from the first: ``$APPLICATIONS``.

        Emulated, a node takes longer to load their 640 MB than any test.
        """
        return bool(os.environ.get("APPLICATIONS"))

    @property
    def images(self) -> Path:
        """Built images, shared by every checkout that names the same build directory."""
        return self.build / "images"

    @property
    def identity(self) -> str:
        """Eight hex digits that differ between checkouts, releases and kinds of rack."""
        return hashlib.sha256(f"{REPOSITORY}\0{self.release.name}\0{self.kind}".encode()).hexdigest()[:8]

    @property
    def namespace(self) -> str:
        """The network namespace that holds the bridges and whatever hangs on them."""
        return f"migrrdma-{self.identity}"

    @property
    def disks(self) -> Path:
        """The nodes' disks and snapshots."""
        return self.build / "racks" / self.identity

    def make(self) -> None:
        """Make its folders, which root alone enters.

        Below them are whole Debians with their set-user-ID programs, keys of agents, and the sockets of devices and
        machines, which a container may ask but no other user of this machine.
        """
        for folder in (self.images, self.disks.parent, self.run.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        self.run.mkdir(exist_ok=True)

    def clear_unfinished(self) -> None:
        """Remove what a command that was killed has left; only for the holder of the build directory's lock.

        Everything is made under a name with a leading dot and renamed when it is complete.
        """
        (self.build / ".accelerator").unlink(missing_ok=True)  # the directory itself may be a user's
        for directory in (self.images, self.wheels, self.disks):
            for draft in directory.glob(".*"):
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()

    @property
    def wheels(self) -> Path:
        """The project's builds, one folder for each state of the tree."""
        return self.build / "wheels"

    @property
    def run(self) -> Path:
        """Sockets, pid files and consoles; short, because a unix socket's path has 108 bytes at most."""
        return Path("/run/migrrdma-lab") / self.identity


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never seen half-written."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text)
    draft.rename(path)
