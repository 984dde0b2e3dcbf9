"""What a check looks at and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from migrrdma_runtime.engine.docker import Docker
from migrrdma_runtime.host.machine import Host, Runner


class Status(Enum):
    """How a check ended; the values are part of ``--json``."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Result:
    """What was found and, unless all is well, what to do about it."""

    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Machine:
    """The machine under examination."""

    host: Host
    run: Runner
    docker: Callable[[], Docker]
    """Connects; raises ``DockerError`` when it cannot."""
    is_root: bool


Check = Callable[[Machine], Result]


def ok(detail: str) -> Result:
    """As it should be."""
    return Result(Status.OK, detail)


def warning(detail: str, remedy: str = "") -> Result:
    """Works, but not everything will."""
    return Result(Status.WARNING, detail, remedy)


def failure(detail: str, remedy: str) -> Result:
    """Does not work."""
    return Result(Status.FAILURE, detail, remedy)
