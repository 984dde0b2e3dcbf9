"""What the command line wants of a container engine, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

RESTORE_DEADLINE_S = 600
"""For a start that restores: CRIU reads the memory of a large process for minutes."""


@dataclass(frozen=True)
class Container:
    """What there is to know about one container before something is done to it."""

    id: str
    name: str
    runtime: str
    running: bool


class Engine(Protocol):
    """One that keeps containers on this host; every method raises `EngineError` in the engine's own words."""

    @property
    def name(self) -> str:
        """Its command, and what ``--engine`` calls it."""

    def container(self, name: str) -> Container:
        """The container, by its name or the unique beginning of its id."""

    def adopts(self, container: Container) -> bool:
        """Whether it is started by our runtime, and so goes on from what is staged."""

    def place(self, container: Container, checkpoint: str, staged: Path) -> Path:
        """Where an imported checkpoint of it is put: with the engine, or in ``staged`` for its next start."""

    def start(self, container: Container, checkpoint: str) -> None:
        """Start it; from ``checkpoint``, which is in its place, by the engine's own way if one is named."""
