"""Which engine a container is of: the one that the user has named, else the one that knows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from migrrdma_runtime.base.errors import EngineError, UsageError
from migrrdma_runtime.engine.docker import DockerDaemon
from migrrdma_runtime.engine.docker_engine import DockerEngine
from migrrdma_runtime.engine.engine import Container, Engine
from migrrdma_runtime.engine.podman import Podman

ENGINES: dict[str, Callable[[], Engine]] = {
    "docker": lambda: DockerEngine(DockerDaemon()),
    "podman": Podman,
}
"""How each is reached; in the order in which they are asked."""


_WHILE_THEY_RUN = {"podman": Path("/run/libpod")}
"""What is there once an engine without a daemon has run a container in this boot: its first command takes its time."""


def by_name(name: str) -> Engine:
    """The engine of that name; `EngineError` if it is not here."""
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r} here: it would be {' or '.join(ENGINES)}")
    return ENGINES[name]()


def find(container: str, wanted: str, *, running: bool = False) -> tuple[Engine, Container]:
    """The engine and its container; ``wanted`` names the engine, or nothing.

    ``running``: only one that runs is looked for, and so no engine is asked that runs none.

    `UsageError` for an engine that is not known, `EngineError` if none has the container or several have.
    """
    if wanted and wanted not in ENGINES:
        raise UsageError(f"there is no engine {wanted!r}: --engine takes {' or '.join(ENGINES)}")
    found: list[tuple[Engine, Container]] = []
    complaints: list[EngineError] = []
    for name in [wanted] if wanted else _asked(running=running):
        try:
            engine = ENGINES[name]()
            found.append((engine, engine.container(container)))
        except EngineError as error:
            complaints.append(error)
    if len(found) > 1:
        names = " and ".join(engine.name for engine, _ in found)
        raise EngineError(f"{names} both have a container {container}: say which with --engine")
    if not found:
        said = [str(one) for one in complaints if not str(one).endswith("is not installed")]
        raise EngineError("; ".join(said) or f"no container engine is installed that could have {container}")
    return found[0]


def _asked(*, running: bool) -> list[str]:
    return [
        one for one in ENGINES if not running or one not in _WHILE_THEY_RUN or _WHILE_THEY_RUN[one].exists()
    ]


def stopped(container: str, wanted: str) -> tuple[Engine, Container]:
    """The same of a container that does not run, as what a checkpoint is started in; else `EngineError`."""
    engine, found = find(container, wanted)
    if found.running:
        raise EngineError(f"container {found.name} is running; a checkpoint is started in a stopped one")
    return engine, found
