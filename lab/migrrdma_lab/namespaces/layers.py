"""What the nodes' file systems are made of, from below: Debian, what a node among namespaces needs, this project.

Beside them the state of a Docker that has loaded the container images. Each is made once, under a name that says of
what, by a node called ``golden`` where it takes one, and never written to again.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import project
from ..bootstrap import recipe_key
from ..container_images import container_archive
from ..errors import BuildError
from ..filesystem import build_node_root, node_root, write_files
from ..plan import RELEASES, Places
from ..steps import run_logged, step
from . import criu_sockets

if TYPE_CHECKING:
    from .host import Host

_LOAD_SECONDS = 300

_MASKED = (
    # the machine below is not the node's to set up
    "systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-modules-load.service",
    "systemd-sysctl.service", "systemd-remount-fs.service", "systemd-pstore.service", "systemd-random-seed.service",
    "modprobe@.service", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "proc-sys-fs-binfmt_misc.automount", "ldconfig.service",
    # nobody logs in at a console
    "getty@.service", "console-getty.service", "systemd-logind.service", "systemd-update-utmp.service",
)  # fmt: skip

_FILES = {
    "etc/resolv.conf": "",
    # The kernel's messages and its audit records are the machine's.
    "etc/systemd/journald.conf.d/rack.conf": "[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=no\n",
    "etc/ssh/sshd_config.d/rack.conf": "UseDNS no\nHostKey /etc/ssh/ssh_host_ed25519_key\n",
}


@dataclass(frozen=True)
class DockerState:
    """What is in ``/var/lib/docker`` of a Docker that holds the container images and nothing else."""

    directory: Path

    @property
    def state(self) -> Path:
        """Everything but the images' files: small, each node has a copy."""
        return self.directory / "state"

    @property
    def images(self) -> Path:
        """The images' files, a folder for each layer: all nodes share them."""
        return self.directory / "images"


Golden = Callable[[list[Path], DockerState | None], AbstractContextManager["Host"]]
"""Boots a node over these layers for as long as the context lasts."""


def system_layers(places: Places) -> list[Path]:
    """Debian, and over it what a node among namespaces needs; the uppermost first."""
    root = build_node_root(places)
    patch = criu_sockets.needed(root)
    recipe = recipe_key(Path(__file__).read_text(), criu_sockets.recipe() if patch else "")
    layer = places.images / f"fast-system-{recipe}"
    if not layer.exists():
        with tempfile.TemporaryDirectory(dir=places.images, prefix=".fast-system-") as work:
            draft = Path(work) / "layer"
            draft.mkdir(0o755)
            write_files(draft, _FILES)
            units = draft / "etc/systemd/system"
            units.mkdir(parents=True, exist_ok=True)
            for unit in _MASKED:
                (units / unit).symlink_to("/dev/null")
            if patch:
                criu_sockets.install(draft, places.build / "logs" / "criu-sockets.log")
            draft.rename(layer)
    return [layer, root]


def docker_state(places: Places, golden: Golden) -> DockerState:
    """Build (or find) the state of a Docker that has loaded every release's container image."""
    archives = [container_archive(places, release) for release in RELEASES]
    key = recipe_key(Path(__file__).read_text(), node_root(places).name, *(archive.name for archive in archives))
    built = DockerState(places.images / f"fast-docker-{places.release.name}-{key}")
    if built.directory.exists():
        return built
    with tempfile.TemporaryDirectory(dir=places.images, prefix=".fast-docker-") as work:
        draft = DockerState(Path(work) / "docker")
        with (
            step("loading the container images into a Docker of the fast rack"),
            golden(system_layers(places), None) as host,
        ):
            for archive in archives:
                _load(host, archive)
            host.shell.run("systemctl", "stop", "docker.socket", "docker.service", "containerd.service")
            draft.images.mkdir(parents=True)
            storage = host.keeper.outside(host.disk.storage) / "docker"
            _copy(storage, draft.state, places)
            for layer in (draft.state / "overlay2").iterdir():
                if (layer / "diff").is_dir():
                    (layer / "diff").rename(draft.images / layer.name)
                    (layer / "diff").mkdir()
        draft.directory.rename(built.directory)
    return built


def _load(host: Host, archive: Path) -> None:
    with archive.open("rb") as image:
        result = subprocess.run(
            host.shell.command(["docker", "load", "-q"]), stdin=image, capture_output=True, text=True,
            timeout=_LOAD_SECONDS, check=False,
        )  # fmt: skip
    if result.returncode:
        raise BuildError(f"docker load of {archive}: {result.stderr.strip()}")


def project_layer(places: Places, docker: DockerState, wheel: Path, golden: Golden) -> Path:
    """Build (or find) what installing this project's ``wheel`` adds to a node."""
    below = system_layers(places)
    layer = places.disks / f"project-{recipe_key(wheel.parent.name, below[0].name, below[1].name)}"
    if layer.exists():
        return layer
    for former in places.disks.glob("project-*"):
        shutil.rmtree(former)
    with tempfile.TemporaryDirectory(dir=places.disks, prefix=".project-") as work:
        draft = Path(work) / "layer"
        with step("installing the project on a node of the fast rack"), golden(below, docker) as host:
            project.install(host.shell, wheel)
            host.shell.run("systemctl", "stop", "migrrdma-agent")
            host.shell.sh(_FORGET)
            _copy(host.keeper.outside(host.disk.storage) / "upper", draft, places)
        draft.rename(layer)
    return layer


_FORGET = """
systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service
rm -rf /var/log/journal /var/lib/migrrdma/agent /etc/migrrdma/tls /root/project
rm -f /etc/hostname /etc/machine-id /etc/ssh/ssh_host_*
"""
"""What belongs to the one node on which the project was installed."""


def _copy(source: Path, destination: Path, places: Places) -> None:
    run_logged(["cp", "-a", source, destination], places.build / "logs" / "fast-copy.log", 120)
