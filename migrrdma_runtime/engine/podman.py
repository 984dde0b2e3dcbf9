"""Podman, by its command: root's containers, each with an OCI runtime of its own choice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import EngineError
from migrrdma_runtime.engine.description import Description, Obstacle
from migrrdma_runtime.engine.engine import RESTORE_DEADLINE_S, Container

_DEADLINE_S = 60


def _not_yet(what: str) -> EngineError:
    return EngineError(f"{what}: migrrdma migrates no containers of Podman's yet")


class Podman:
    """The engine whose command is ``podman`` in $PATH."""

    name = "podman"

    def container(self, name: str) -> Container:
        """``podman container inspect``."""
        said = self._run("container", "inspect", "--", name)
        try:
            (found,) = json.loads(said)
            return Container(
                id=str(found["Id"]),
                name=str(found["Name"]),
                runtime=str(found["OCIRuntime"]),
                running=bool(found["State"]["Running"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"podman container inspect {name}: no description of a container") from error

    def containers(self) -> list[Container]:
        """All of them, but for those that go away meanwhile."""
        found = []
        for container_id in self._run("ps", "--all", "--quiet", "--no-trunc").split():
            with suppress(EngineError):
                found.append(self.container(container_id))
        return found

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
        self._run("start", "--", container.id, seconds=RESTORE_DEADLINE_S)

    def describe(self, container: Container) -> Description:
        """Not yet."""
        raise _not_yet(container.name)

    def obstacles(self, wanted: Description) -> list[Obstacle]:
        """All there is to be said."""
        return [Obstacle(str(_not_yet(wanted.name)), "use migrrdma checkpoint import")]

    def create(self, wanted: Description) -> Container:
        """Not yet."""
        raise _not_yet(wanted.name)

    def remove(self, container: Container) -> None:
        """Not yet."""
        raise _not_yet(container.name)

    def set_restart(self, container: Container, policy: dict[str, Any]) -> None:  # noqa: ARG002
        """Not yet."""
        raise _not_yet(container.name)

    def rename(self, container: Container, name: str) -> None:  # noqa: ARG002
        """Not yet."""
        raise _not_yet(container.name)

    def kill(self, container: Container) -> None:
        """Not yet."""
        raise _not_yet(container.name)

    def low_level_root(self, container: Container) -> Path:
        """Not yet."""
        raise _not_yet(container.name)

    def layer(self, container: Container) -> Path:
        """Not yet."""
        raise _not_yet(container.name)

    def has_image(self, image_id: str) -> bool:
        """Not yet."""
        raise _not_yet(image_id)

    def layers(self, image_id: str) -> list[str]:
        """Not yet."""
        raise _not_yet(image_id)

    def layers_here(self, layers: list[str]) -> int:  # noqa: ARG002
        """None."""
        return 0

    def save_image(self, image_id: str, reference: str, without: int = 0) -> Iterator[bytes]:  # noqa: ARG002
        """Not yet."""
        raise _not_yet(image_id)

    def load_image(self, chunks: Iterator[bytes], image_id: str) -> None:  # noqa: ARG002
        """Not yet."""
        raise _not_yet(image_id)

    @staticmethod
    def _run(*words: str, seconds: float = _DEADLINE_S) -> str:
        try:
            done = subprocess.run(
                ["podman", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except FileNotFoundError as error:
            raise EngineError("podman is not installed") from error
        except OSError as error:
            raise EngineError(f"podman cannot be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"podman {words[0]} has not ended in {seconds:.0f} s") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), f"exit status {done.returncode}")
            raise EngineError(f"podman: {last.strip().removeprefix('Error: ')}")
        return done.stdout.decode(errors="replace")
