"""A fake host and a fake Docker: what the real ones will not be on command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrrdma_runtime.docker_api import Container, Docker
from migrrdma_runtime.errors import DockerError
from migrrdma_runtime.host import Host

MakeDocker = Callable[..., Docker]


class _RememberedDocker:
    """A daemon that knows what it was told and remembers what it was asked to start."""

    def __init__(self, *containers: Container, info: dict[str, Any], started: list[tuple[str, str]]) -> None:
        self._containers = containers
        self._info = info
        self._started = started

    def info(self) -> dict[str, Any]:
        """What ``docker info`` says."""
        return self._info

    def containers(self) -> list[Container]:
        """All of them."""
        return list(self._containers)

    def container(self, name: str) -> Container:
        """By id or name."""
        for one in self._containers:
            if name in (one.id, one.name):
                return one
        raise DockerError(f"container {name}: no such container")

    def start(self, container_id: str, checkpoint: str) -> None:
        """Remember it."""
        self._started.append((container_id, checkpoint))


@pytest.fixture(name="make_docker")
def _make_docker() -> MakeDocker:
    def make(
        *containers: Container,
        info: dict[str, Any] | None = None,
        started: list[tuple[str, str]] | None = None,
    ) -> Docker:
        return _RememberedDocker(*containers, info=info or {}, started=started if started is not None else [])

    return make


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    return Host(root)
