"""Podman, by its command: root's containers, each with an OCI runtime of its own choice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import EngineError
from migrrdma_runtime.engine import archive, obstacles, podman_description
from migrrdma_runtime.engine.description import Description, Obstacle
from migrrdma_runtime.engine.docker_description import endpoints_of
from migrrdma_runtime.engine.engine import END_DEADLINE_S, RESTORE_DEADLINE_S, Container
from migrrdma_runtime.engine.mounts import Mount, mounts_of
from migrrdma_runtime.engine.podman_here import PodmanCommand, container_of

_STATES = ("run/runc", "run/crun")
"""Where runc and crun keep what they know: Podman tells them nothing else."""


class Podman:
    """The engine whose command is ``podman`` in $PATH."""

    name = "podman"

    def __init__(self, root: Path = Path("/")) -> None:
        self._podman = PodmanCommand()
        self._root = root

    def container(self, name: str) -> Container:
        """``podman container inspect``."""
        return container_of(self._podman.inspect("container", name))

    def containers(self) -> list[Container]:
        """All of them, but for those that go away meanwhile."""
        found = []
        for container_id in self._podman.run("ps", "--all", "--quiet", "--no-trunc").split():
            with suppress(EngineError):
                found.append(self.container(container_id))
        return found

    def knows(self, container_id: str) -> bool:
        """``podman container exists``, which waits for the container's lock."""
        return self._podman.exists("container", container_id)

    def adopts(self, container: Container) -> bool:
        """By the path of the runtime, or by what containers.conf calls it."""
        return Path(container.runtime).name in (Path(paths.RUNTIME).name, paths.RUNTIME_NAME)

    def place(self, container: Container, checkpoint: str, staged: Path) -> Path:  # noqa: ARG002 - the engine's interface
        """What is staged itself: Podman has no folder for checkpoints that others have made."""
        return staged / container.id

    def start(self, container: Container, checkpoint: str) -> None:
        """``podman start``; it starts nothing from a checkpoint (``podman container restore`` has ways of its own)."""
        if checkpoint:
            raise EngineError(f"podman starts {container.name} from no checkpoint that it has not made")
        self._podman.run("start", "--", container.id, seconds=RESTORE_DEADLINE_S)

    def describe(self, container: Container) -> Description:
        """From the command that it was made by, and from what it is now."""
        found = self._podman.inspect("container", container.id)
        names = found["NetworkSettings"].get("Networks") or {}
        return podman_description.description(found, {name: self._podman.network(name) for name in names})

    def obstacles(self, wanted: Description) -> list[Obstacle]:
        """Of Podman and of this host."""
        return obstacles.obstacles(wanted, self.name, self._podman, self._root)

    def left_behind(self, container: Container) -> list[Obstacle]:
        """What is in its volumes without a name."""
        return obstacles.left_behind(self._podman.inspect("container", container.id).get("Mounts") or [])

    def mounts(self, container: Container) -> list[Mount]:
        """By ``podman container inspect``."""
        found = self._podman.inspect("container", container.id)
        return mounts_of(found.get("Mounts") or [], self._podman.volume)

    def remove_volume(self, name: str) -> None:
        """``podman volume rm``."""
        if self._podman.exists("volume", name):
            self._podman.run("volume", "rm", "--", name)

    def create(self, wanted: Description) -> Container:
        """By the same command, of the very image."""
        image = self._podman.image(wanted.image) if wanted.image else None
        by_name = image is not None and f"sha256:{image['Id']}" == wanted.image_id
        networks = {name: self._podman.network(name) for name in endpoints_of(wanted)}
        words = podman_description.command(
            wanted, wanted.image if by_name else wanted.image_id.removeprefix("sha256:"), networks
        )
        made = self._podman.run(*words).split()[-1]
        return self.container(made)

    def remove(self, container: Container) -> None:
        """``podman rm --force --volumes``."""
        self._podman.run("rm", "--force", "--volumes", "--time=0", "--ignore", "--", container.id)

    def set_restart(self, container: Container, policy: dict[str, Any]) -> None:
        """``podman update --restart``, from Podman 5.1 on."""
        now = self._podman.inspect("container", container.id)["HostConfig"].get("RestartPolicy") or {}
        wanted = podman_description.restart_option(policy)
        if podman_description.restart_option({"Name": "no", **{k: v for k, v in now.items() if v}}) == wanted:
            return
        try:
            self._podman.run("update", f"--restart={wanted}", "--", container.id)
        except EngineError as error:
            if "unknown flag: --restart" not in str(error):
                raise
            raise EngineError(
                f"this Podman cannot change the restart policy of {container.name}, from 5.1 on it can: "
                "create the container without one"
            ) from error

    def rename(self, container: Container, name: str) -> None:
        """``podman rename``."""
        self._podman.run("rename", "--", container.id, name)

    def kill(self, container: Container) -> None:
        """``podman kill`` and ``podman wait``."""
        for words in (("kill", "--signal=KILL"), ("wait",)):
            try:
                self._podman.run(*words, "--", container.id, seconds=END_DEADLINE_S)
            except EngineError:
                # It has ended by itself, and with --rm it is gone.
                if self._podman.exists("container", container.id) and self.container(container.id).running:
                    raise

    def low_level_root(self, container: Container) -> Path:
        """Where the low-level runtime keeps its state if nobody says otherwise."""
        for state in _STATES:
            if (self._root / state / container.id).is_dir():
                return Path("/") / state
        raise EngineError(f"container {container.name}: no low-level runtime knows it; does it run?")

    def layer(self, container: Container) -> Path:
        """As its storage says."""
        data = (self._podman.inspect("container", container.id).get("GraphDriver") or {}).get("Data") or {}
        if upper := data.get("UpperDir"):
            return Path(upper)
        raise EngineError(f"container {container.name} has no layer of overlay's")

    def has_image(self, image_id: str) -> bool:
        """By its ID."""
        return self._podman.exists("image", image_id.removeprefix("sha256:"))

    def layers(self, image_id: str) -> list[str]:
        """Of ``podman image inspect``."""
        image = self._podman.inspect("image", image_id.removeprefix("sha256:"))
        return list((image.get("RootFS") or {}).get("Layers") or [])

    def layers_here(self, layers: list[str]) -> int:  # noqa: ARG002 - the engine's interface
        """None: Podman loads no archive that lacks one."""
        return 0

    def save_image(self, image_id: str, reference: str, without: int = 0) -> Iterator[bytes]:  # noqa: ARG002
        """``podman save``."""
        named = self._podman.image(reference) if reference else None
        bare = image_id.removeprefix("sha256:")
        is_name = named is not None and named["Id"] == bare and reference in (named.get("RepoTags") or [])
        return self._podman.read("save", "--format=docker-archive", "--", reference if is_name else bare)

    def load_image(self, chunks: Iterator[bytes], image_id: str) -> None:
        """``podman load``, without a name, and the name afterwards."""
        known = self._podman.images()
        names: list[str] = []
        self._podman.write(archive.without_names(chunks, names), "load", "--quiet")
        if not self.has_image(image_id):
            loaded = sorted(self._podman.images() - known)
            for one in loaded:
                self._podman.run("rmi", "--force", "--", one)
            what = f"{', '.join(loaded)}; it is removed again" if loaded else "nothing new"
            raise EngineError(f"what was loaded is not image {image_id} but {what}")
        if len(names) == 1 and not self._podman.exists("image", names[0]):
            self._podman.run("tag", "--", image_id.removeprefix("sha256:"), names[0])
