"""The Docker daemon as the command line needs it; every error of the SDK becomes a ``DockerError`` here.

The SDK and what it stands on are two fifths of all that the command line could import, so they are imported
when a daemon is first asked something.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine.engine import RESTORE_DEADLINE_S, Container

if TYPE_CHECKING:
    import requests

DEADLINE_S = 30


class Docker(Protocol):
    """The questions asked of a daemon; tests answer them from memory."""

    def info(self) -> dict[str, Any]:
        """``docker info``."""

    def container(self, name: str) -> Container:
        """``docker inspect``, by name or by unique beginning of the id."""

    def containers(self) -> list[Container]:
        """Every container, running or not."""

    def start(self, container_id: str, checkpoint: str) -> None:
        """``docker start``, or with a checkpoint ``docker start --checkpoint``."""


class DockerDaemon:
    """The daemon that ``$DOCKER_HOST`` names, or the local one."""

    def __init__(self) -> None:
        import docker
        import docker.utils

        with _translated("Docker cannot be reached"):
            settings = docker.utils.kwargs_from_env()
            self._client = docker.APIClient(version="auto", timeout=DEADLINE_S, **settings)

    def close(self) -> None:
        """Drop the connection; a program that ends need not."""
        self._client.close()

    def info(self) -> dict[str, Any]:
        """``docker info``."""
        with _translated("Docker does not answer"):
            info: dict[str, Any] = self._client.info()
            return info

    def container(self, name: str) -> Container:
        """``docker inspect``, by name or by unique beginning of the id."""
        with _translated(f"container {name}"):
            found = self._client.inspect_container(name)
        return Container(
            id=found["Id"],
            name=found["Name"].removeprefix("/"),
            runtime=found["HostConfig"].get("Runtime") or "",
            running=found["State"]["Running"],
        )

    def containers(self) -> list[Container]:
        """Every container, running or not."""
        with _translated("Docker does not list its containers"):
            ids = [entry["Id"] for entry in self._client.containers(all=True)]
        found = []
        for one in ids:
            with suppress(DockerError):  # removed meanwhile
                found.append(self.container(one))
        return found

    def start(self, container_id: str, checkpoint: str) -> None:
        """``docker start``, or with a checkpoint ``docker start --checkpoint``, for which the SDK has no method.

        Either may restore, which takes its time.
        """
        url = f"{self._client.base_url}/v{self._client.api_version}/containers/{container_id}/start"
        parameters = {"checkpoint": checkpoint} if checkpoint else {}
        with _translated(f"docker start --checkpoint {checkpoint}" if checkpoint else "docker start"):
            answer = self._client.post(url, params=parameters, timeout=RESTORE_DEADLINE_S)
            if not answer.ok:
                raise DockerError(_one_line(_message(answer)))


@dataclass(frozen=True)
class DockerEngine:
    """Docker, as an engine among others."""

    daemon: Docker
    name = "docker"

    def container(self, name: str) -> Container:
        """By name or by unique beginning of the id."""
        return self.daemon.container(name)

    def adopts(self, container: Container) -> bool:
        """By the name of the runtime in ``daemon.json``."""
        return container.runtime == paths.RUNTIME_NAME

    def place(self, container: Container, checkpoint: str, staged: Path) -> Path:  # noqa: ARG002 - the engine's interface
        """In dockerd's own folder of it, for ``docker start --checkpoint``; it goes with the container."""
        return checkpoints_of(self.daemon, container) / checkpoint

    def start(self, container: Container, checkpoint: str) -> None:
        """``docker start``, or with a checkpoint ``docker start --checkpoint``."""
        self.daemon.start(container.id, checkpoint)


def checkpoints_of(daemon: Docker, container: Container) -> Path:
    """Where dockerd looks for a container's checkpoints, with user namespaces or without."""
    root = Path(str(daemon.info()["DockerRootDir"]))
    folder = root / "containers" / container.id
    if not folder.is_dir():
        raise DockerError(
            f"there is no {folder} on this host; is the daemon that answers "
            f"({os.environ.get('DOCKER_HOST', 'the local one')}) running here?"
        )
    return folder / "checkpoints"


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    import docker.errors
    import requests.exceptions

    try:
        yield
    except docker.errors.APIError as error:
        raise DockerError(f"{doing}: {_one_line(error.explanation or error)}") from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise DockerError(f"{doing}: {_one_line(_root_cause(error))}") from error


def _root_cause(error: BaseException) -> object:
    """The system's own words, around which requests and the SDK wrap several layers of theirs."""
    while error.__context__ is not None:
        error = error.__context__
    return error.strerror if isinstance(error, OSError) and error.strerror else error


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.reason}: {answer.text[:500]}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
