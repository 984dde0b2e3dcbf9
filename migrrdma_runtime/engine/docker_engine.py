"""Docker, as an engine among others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine import (
    docker_description,
    docker_images,
    docker_networks,
    obstacles,
    overlay,
)
from migrrdma_runtime.engine.description import Description, Obstacle
from migrrdma_runtime.engine.docker import DockerDaemon
from migrrdma_runtime.engine.docker_networks import Endpoint
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.mounts import Mount, mounts_of

_NAMESPACE = "moby"
"""Docker's, at containerd."""

_BUNDLES = ("/run/containerd", "/run/docker/containerd/daemon")
"""Where containerd keeps its state: one that is a service of its own, and one that dockerd has started."""


@dataclass(frozen=True)
class DockerEngine:
    """The containers of one daemon."""

    daemon: DockerDaemon
    root: Path = Path("/")
    """Of the host that the daemon runs on: this one."""
    name = "docker"

    def container(self, name: str) -> Container:
        """By name or by unique beginning of the id."""
        return self.daemon.container(name)

    def containers(self) -> list[Container]:
        """``docker ps -a``."""
        return self.daemon.containers()

    def knows(self, container_id: str) -> bool:
        """By an inspect, for which dockerd waits until a start is over."""
        return self.daemon.knows(container_id)

    def adopts(self, container: Container) -> bool:
        """By the name of the runtime in ``daemon.json``."""
        return container.runtime == paths.RUNTIME_NAME

    def place(self, container: Container, checkpoint: str, staged: Path) -> Path:  # noqa: ARG002 - the engine's interface
        """In dockerd's own folder of it, for ``docker start --checkpoint``; it goes with the container."""
        return self._folder(container) / "checkpoints" / checkpoint

    def start(self, container: Container, checkpoint: str) -> None:
        """``docker start``, or with a checkpoint ``docker start --checkpoint``."""
        self.daemon.start(container.id, checkpoint)

    def describe(self, container: Container) -> Description:
        """From ``docker inspect``, and from dockerd's own file what that does not tell."""
        found = self.daemon.inspect(container.id)
        chosen: dict[str, str] = {}
        with suppress(OSError, DockerError, ValueError):
            chosen = docker_description.chosen_macs((self._folder(container) / "config.v2.json").read_bytes())
        networks = {name: self.daemon.network(name) for name in found["NetworkSettings"]["Networks"] or {}}
        return docker_description.description(
            found, chosen, networks, docker_description.store(self.daemon.info())
        )

    def obstacles(self, wanted: Description) -> list[Obstacle]:
        """Of the daemon and of this host."""
        return obstacles.obstacles(wanted, self.name, self.daemon, self.root)

    def left_behind(self, container: Container) -> list[Obstacle]:
        """What is in its volumes without a name."""
        return obstacles.left_behind(self.daemon.inspect(container.id).get("Mounts") or [])

    def mounts(self, container: Container) -> list[Mount]:
        """By ``docker inspect``."""
        return mounts_of(self.daemon.inspect(container.id).get("Mounts") or [], self.daemon.volume)

    def remove_volume(self, name: str) -> None:
        """``docker volume rm``."""
        self.daemon.remove_volume(name)

    def create(self, wanted: Description) -> Container:
        """Create, then connect to each network by itself.

        Docker before 25 takes one network in a create, and looks whether an address is possible only when it connects.
        """
        image = self.daemon.image(wanted.image) if wanted.image else None
        by_name = image is not None and image["Id"] == wanted.image_id
        reference = wanted.image if by_name else wanted.image_id
        request = docker_description.request(wanted, reference, self.daemon.api)
        made = self.daemon.create(request.body, wanted.name)
        try:
            if request.disconnect:
                self.daemon.disconnect(made, request.disconnect)
            for network, endpoint in request.endpoints.items():
                self._connect(made, network, endpoint)
            return self.daemon.container(made)
        except BaseException:
            with suppress(DockerError):
                self.daemon.remove(made)
            raise

    def _connect(self, container_id: str, network: str, endpoint: Endpoint) -> None:
        here = self.daemon.network(network)
        chosen = docker_networks.as_chosen(endpoint)
        wanted = docker_networks.settled(endpoint, here) if here else chosen
        try:
            self.daemon.connect(container_id, network, wanted)
        except DockerError as error:
            if wanted == chosen or not docker_networks.gives_no_addresses(str(error)):
                raise
            self.daemon.connect(container_id, network, chosen)

    def remove(self, container: Container) -> None:
        """``docker rm --force --volumes``."""
        self.daemon.remove(container.id)

    def set_restart(self, container: Container, policy: dict[str, Any]) -> None:
        """``docker update --restart``, which Docker refuses of a container with ``--rm``: its policy is "no"."""
        if container.auto_remove and policy["Name"] == "no":
            return
        self.daemon.set_restart(container.id, policy)

    def rename(self, container: Container, name: str) -> None:
        """``docker rename``."""
        self.daemon.rename(container.id, name)

    def kill(self, container: Container) -> None:
        """``docker kill`` and ``docker wait``."""
        self.daemon.kill(container.id)

    def low_level_root(self, container: Container) -> Path:
        """What containerd's shim was told, and keeps in the bundle while the container runs."""
        for state in _BUNDLES:
            bundle = self.root / state[1:] / "io.containerd.runtime.v2.task" / _NAMESPACE / container.id
            with suppress(OSError):
                return docker_description.shim_root((bundle / "options.json").read_bytes()) / _NAMESPACE
        raise DockerError(f"container {container.name}: containerd keeps nothing of it; does it run?")

    def layer(self, container: Container) -> Path:
        """As overlay2 says; with the containerd image store, as it is mounted or as containerd would mount it."""
        driver = self.daemon.inspect(container.id).get("GraphDriver") or {}
        if upper := (driver.get("Data") or {}).get("UpperDir"):
            return Path(upper)
        if container.pid:
            return overlay.upper_of_process(self.root, container.pid)
        return overlay.upper_of_snapshot(_NAMESPACE, container.id)

    def has_image(self, image_id: str) -> bool:
        """By its ID."""
        found = self.daemon.image(image_id)
        return found is not None and found["Id"] == image_id

    def layers(self, image_id: str) -> list[str]:
        """Of ``docker image inspect``."""
        return docker_images.layers(self.daemon, image_id)

    def layers_here(self, layers: list[str]) -> int:
        """By what the images here consist of."""
        return docker_images.layers_here(self.daemon, layers)

    def save_image(self, image_id: str, reference: str, without: int = 0) -> Iterator[bytes]:
        """``docker save``."""
        return docker_images.save(self.daemon, image_id, reference, without)

    def load_image(self, chunks: Iterator[bytes], image_id: str) -> None:
        """``docker load``."""
        docker_images.load(self.daemon, chunks, image_id)

    def _folder(self, container: Container) -> Path:
        """Dockerd's own of it, with user namespaces or without."""
        folder = Path(str(self.daemon.info()["DockerRootDir"])) / "containers" / container.id
        if not folder.is_dir():
            raise DockerError(
                f"there is no {folder} on this host; is the daemon that answers "
                f"({os.environ.get('DOCKER_HOST', 'the local one')}) running here?"
            )
        return folder
