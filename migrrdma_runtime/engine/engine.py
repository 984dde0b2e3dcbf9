"""What is wanted of a container engine, whichever it is.

Methods block, some of them for minutes: whoever has an event loop calls them in threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from migrrdma_runtime.engine.description import Description, Obstacle
from migrrdma_runtime.engine.mounts import Mount

RESTORE_DEADLINE_S = 600
"""For a start that restores: CRIU reads the memory of a large process for minutes."""

END_DEADLINE_S = 30
"""For a killed container to be ended and cleaned up."""

IMAGE_DEADLINE_S = 600
"""For an engine that works on an image without a word."""


@dataclass(frozen=True)
class Container:
    """What there is to know about one container before something is done to it."""

    id: str
    name: str
    runtime: str
    running: bool
    """Also while it is paused."""
    paused: bool = False
    pid: int = 0
    """Of its first process, as this host counts; 0: it does not run."""
    auto_remove: bool = False
    """The engine removes it when it ends."""


class Engine(Protocol):
    """One that keeps containers on this host; every method raises `EngineError` in the engine's own words."""

    @property
    def name(self) -> str:
        """Its command, and what ``--engine`` calls it."""

    def container(self, name: str) -> Container:
        """The container, by its name or the unique beginning of its id."""

    def containers(self) -> list[Container]:
        """Every container, running or not."""

    def knows(self, container_id: str) -> bool:
        """Whether it has a container of exactly this id; answered when no start of it is under way any more."""

    def adopts(self, container: Container) -> bool:
        """Whether it is started by our runtime, and so goes on from what is staged."""

    def place(self, container: Container, checkpoint: str, staged: Path) -> Path:
        """Where an imported checkpoint of it is put: with the engine, or in ``staged`` for its next start."""

    def start(self, container: Container, checkpoint: str) -> None:
        """Start it; from ``checkpoint``, which is in its place, by the engine's own way if one is named."""

    def describe(self, container: Container) -> Description:
        """What an equal container is made of."""

    def obstacles(self, wanted: Description) -> list[Obstacle]:
        """Why it could not be made or started on this host: everything at once; nothing is touched.

        An image that is not here is no obstacle: it can be loaded.
        """

    def left_behind(self, container: Container) -> list[Obstacle]:
        """What it has written where a move does not look, and what would be removed with it."""

    def mounts(self, container: Container) -> list[Mount]:
        """What it mounts that outlives it; of one that was never started, too."""

    def remove_volume(self, name: str) -> None:
        """Remove a volume that no container has any more; none is no error."""

    def create(self, wanted: Description) -> Container:
        """Make an equal container and do not start it; what cannot be completed is removed again.

        It has the same networks and there the same addresses, also those that the engine had chosen by itself, where
        a network allows to ask for one; its restart policy is "no".
        """

    def remove(self, container: Container) -> None:
        """End it and remove it with its anonymous volumes, never named ones; none is no error."""

    def set_restart(self, container: Container, policy: dict[str, Any]) -> None:
        """Change its restart policy: what a `Description` has, or ``{"Name": "no"}`` to switch it off."""

    def rename(self, container: Container, name: str) -> None:
        """Give it another name."""

    def kill(self, container: Container) -> None:
        """SIGKILL, and wait until the engine says that it has ended; one that does not run is no error."""

    def low_level_root(self, container: Container) -> Path:
        """Where the low-level runtime keeps what it knows of it (its ``--root``), while it runs."""

    def layer(self, container: Container) -> Path:
        """The directory on this host with what it has written into its own file system."""

    def has_image(self, image_id: str) -> bool:
        """Whether the image is here."""

    def layers(self, image_id: str) -> list[str]:
        """The digests of an image's layers, the lowest first."""

    def layers_here(self, layers: list[str]) -> int:
        """How many of them, from the lowest on, an archive may lack that is loaded here."""

    def save_image(self, image_id: str, reference: str, without: int = 0) -> Iterator[bytes]:
        """The image as the engine's ``save`` writes it, under ``reference`` if that is one of its names here.

        The lowest layers, as many as `layers_here` has said elsewhere, are left out.
        """

    def load_image(self, chunks: Iterator[bytes], image_id: str) -> None:
        """Load what `save_image` gave. Then that very image is here, or it raises and nothing of it is.

        It is named as it was, if nothing here has that name.
        """
