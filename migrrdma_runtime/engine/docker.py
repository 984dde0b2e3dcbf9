"""The Docker daemon as the command line needs it; every error of the SDK becomes a ``DockerError`` here.

The SDK and what it stands on are two fifths of all that the command line could import, so they are imported
when a daemon is first asked something.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine.engine import END_DEADLINE_S, IMAGE_DEADLINE_S, RESTORE_DEADLINE_S, Container

if TYPE_CHECKING:
    import docker.errors
    import requests

DEADLINE_S = 30
_CHUNK = 1 << 20
_NOT_FOUND = 404
_CONFLICT = 409


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
        return container_of(self.inspect(name))

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
        parameters = {"checkpoint": checkpoint} if checkpoint else {}
        with _translated(f"docker start --checkpoint {checkpoint}" if checkpoint else "docker start"):
            url = self._url(f"containers/{container_id}/start")
            answer = self._client.post(url, params=parameters, timeout=RESTORE_DEADLINE_S)
            _succeed(answer, "")

    @property
    def api(self) -> tuple[int, ...]:
        """The version that the daemon speaks: (1, 45)."""
        return tuple(int(part) for part in str(self._client.api_version).split("."))

    def inspect(self, name: str) -> dict[str, Any]:
        """All that ``docker inspect`` says of a container."""
        with _translated(f"container {name}"):
            found: dict[str, Any] = self._client.inspect_container(name)
            return found

    def create(self, body: dict[str, Any], name: str) -> str:
        """``docker create`` of what the API takes; the new id."""
        with _translated(f"docker create --name {name}"):
            created = self._client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
            return str(created["Id"])

    def connect(self, container_id: str, network: str, endpoint: dict[str, Any]) -> None:
        """``docker network connect``, with all that the API knows of it and the SDK of some version does not."""
        self._post(
            f"networks/{quote(network, safe='')}/connect",
            f"docker network connect {network}",
            json={"Container": container_id, "EndpointConfig": endpoint},
        )

    def disconnect(self, container_id: str, network: str) -> None:
        """``docker network disconnect``."""
        with _translated(f"docker network disconnect {network}"):
            self._client.disconnect_container_from_network(container_id, network)

    def has_runtime(self, name: str) -> bool:
        """By the name in ``daemon.json``."""
        return name in (self.info().get("Runtimes") or {})

    def network(self, name: str) -> dict[str, Any] | None:
        """``docker network inspect`` of one of exactly this name."""
        found = self._if_there(f"network {name}", lambda: self._client.inspect_network(name))
        return found if found and found["Name"] == name else None

    def container_named(self, name: str) -> Container | None:
        """One of exactly this name."""
        found = self._if_there(f"container {name}", lambda: self._client.inspect_container(name))
        return container_of(found) if found and found["Name"] == f"/{name}" else None

    def knows(self, container_id: str) -> bool:
        """Whether there is one of exactly this id."""
        found = self._if_there(
            f"container {container_id}", lambda: self._client.inspect_container(container_id)
        )
        return found is not None and found["Id"] == container_id

    def volume(self, name: str) -> dict[str, Any] | None:
        """``docker volume inspect``."""
        return self._if_there(f"volume {name}", lambda: self._client.inspect_volume(name))

    def remove_volume(self, name: str) -> None:
        """``docker volume rm``; none is no error."""
        with _translated(f"volume {name} is not removed"), _not_there_is_fine():
            self._client.remove_volume(name)

    def image(self, reference: str) -> dict[str, Any] | None:
        """``docker image inspect``."""
        return self._if_there(
            f"image {reference}",
            lambda: self._client.inspect_image(reference),  # type: ignore[no-untyped-call]
        )

    def remove(self, container_id: str) -> None:
        """``docker rm --force --volumes``; returns when it is gone. None is no error."""
        gone = f"container {container_id} is not removed"
        with _translated(gone), _not_there_is_fine():
            try:
                self._client.remove_container(container_id, v=True, force=True)
            except _api_error() as error:
                if error.status_code != _CONFLICT:
                    raise
                # Somebody removes it already; with --rm, the daemon itself.
                self._client.wait(container_id, timeout=END_DEADLINE_S, condition="removed")

    def set_restart(self, container_id: str, policy: Any) -> None:
        """``docker update --restart``."""
        with _translated(f"docker update --restart={policy['Name']}"):
            self._client.update_container(container_id, restart_policy=policy)

    def rename(self, container_id: str, name: str) -> None:
        """``docker rename``."""
        with _translated(f"docker rename {container_id} {name}"):
            self._client.rename(container_id, name)

    def kill(self, container_id: str) -> None:
        """``docker kill`` and ``docker wait``; one that does not run, or no more is there, is no error."""
        with _translated(f"docker kill {container_id}"), _not_there_is_fine():
            try:
                self._client.kill(container_id, signal="SIGKILL")
            except _api_error() as error:
                if error.status_code != _CONFLICT:
                    raise
            self._client.wait(container_id, timeout=END_DEADLINE_S, condition="not-running")

    def save(self, reference: str) -> Iterator[bytes]:
        """``docker save``."""
        with _translated(f"docker save {reference}"):
            # Docker gathers the whole image before it sends the first of it.
            answer = self._client.get(
                self._url("images/get"), params={"names": reference}, stream=True, timeout=IMAGE_DEADLINE_S
            )
            _succeed(answer, f"docker save {reference}: ")
            with answer:
                yield from answer.iter_content(_CHUNK)

    def load(self, chunks: Iterator[bytes]) -> None:
        """``docker load``."""
        answer = self._post(
            "images/load",
            "docker load",
            params={"quiet": 1},
            data=chunks,
            timeout=IMAGE_DEADLINE_S,
        )
        for line in answer.text.splitlines():
            if error := json.loads(line).get("error"):
                raise DockerError(f"docker load: {_one_line(error)}")

    def images(self) -> list[dict[str, Any]]:
        """``docker images``: those without a name as well."""
        with _translated("Docker does not list its images"):
            found: list[dict[str, Any]] = self._client.images()
            return found

    def tag(self, image: str, reference: str) -> None:
        """``docker tag``."""
        repository, tag = split_reference(reference)
        with _translated(f"docker tag {image} {reference}"):
            self._client.tag(image, repository, tag, force=True)

    def remove_image(self, image: str) -> None:
        """``docker rmi``: a name, or an image with all its names. None is no error."""
        with _translated(f"docker rmi {image}"), _not_there_is_fine():
            self._client.remove_image(image, force=True)

    def _url(self, path: str) -> str:
        return f"{self._client.base_url}/v{self._client.api_version}/{path}"

    def _post(self, path: str, doing: str, **how: Any) -> requests.Response:
        """Ask for what the SDK has no method for, or not in every version; refusals in Docker's own words."""
        with _translated(doing):
            answer = self._client.post(self._url(path), **{"timeout": DEADLINE_S, **how})
            _succeed(answer, f"{doing}: ")
            return answer

    @staticmethod
    def _if_there(what: str, inspect: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        with _translated(what), _not_there_is_fine():
            return inspect()
        return None


def container_of(found: dict[str, Any]) -> Container:
    """What ``docker inspect`` says of a container, as far as every engine says it."""
    state = found["State"]
    return Container(
        id=found["Id"],
        name=found["Name"].removeprefix("/"),
        runtime=found["HostConfig"].get("Runtime") or "",
        running=state["Running"],
        paused=state.get("Paused", False),
        pid=state.get("Pid", 0),
        auto_remove=found["HostConfig"].get("AutoRemove", False),
    )


def split_reference(reference: str) -> tuple[str, str]:
    """An image's repository and tag: a colon in the last part is no registry's port."""
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag or "latest"


def _api_error() -> type[docker.errors.APIError]:
    """What the SDK raises for a refusal."""
    import docker.errors

    return docker.errors.APIError


@contextmanager
def _not_there_is_fine() -> Iterator[None]:
    try:
        yield
    except _api_error() as error:
        if error.status_code != _NOT_FOUND:
            raise


def _succeed(answer: requests.Response, doing: str) -> None:
    if not answer.ok:
        raise DockerError(doing + _one_line(_message(answer)))


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
