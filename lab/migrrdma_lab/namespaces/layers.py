"""What the nodes' file systems are made of: over the system's layers, what installing this project adds.

Beside them the state of a Docker that has loaded the container images. Each is made once, under a name that says of
what, by a node called ``golden`` where it takes one, and never written to again.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import project
from ..bootstrap import recipe_key
from ..container_images import archive_path, container_archive
from ..errors import BuildError
from ..filesystem import node_root
from ..plan import RELEASES, Places
from ..steps import run_logged, step
from .keeping import Keeper
from .system import build_system_layers, system_layers

if TYPE_CHECKING:
    from .host import Host

_LOAD_SECONDS = 300


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


def docker_state(places: Places) -> DockerState:
    """Where the state of a Docker is, or will be, that has loaded every release's container image."""
    archives = [archive_path(places, release).name for release in RELEASES]
    return DockerState(places.images / f"fast-docker-{recipe_key(node_root(places).name, *archives)}")


def build_docker_state(places: Places, golden: Golden) -> DockerState:
    """Build it, if it is not built."""
    archives = [container_archive(places, release) for release in RELEASES]
    below = build_system_layers(places)
    built = docker_state(places)
    if built.directory.exists():
        return built
    with tempfile.TemporaryDirectory(dir=places.images, prefix=".fast-docker-") as work:
        draft = DockerState(Path(work) / "docker")
        with step("loading the container images into a Docker of the fast rack"), golden(below, None) as host:
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


def project_layer(places: Places, state: str) -> Path:
    """Where what installing this project in ``state`` adds to a node is, or will be."""
    return places.disks / f"project-{recipe_key(state, system_layers(places)[0].name)}"


def build_project_layer(keeper: Keeper, docker: DockerState, wheel: Path, golden: Golden) -> Path:
    """Build it from the project's ``wheel``, if it is not built."""
    places = keeper.places
    layer = project_layer(places, wheel.parent.name)
    if layer.exists():
        return layer
    keeper.remove_unused("project-*")
    with tempfile.TemporaryDirectory(dir=places.disks, prefix=".project-") as work:
        draft = Path(work) / "layer"
        with (
            step("installing the project on a node of the fast rack"),
            golden(system_layers(places), docker) as host,
        ):
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
