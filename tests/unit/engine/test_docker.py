"""What is said to the Docker daemon over its socket, and how its refusals reach the user."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine.docker import DockerDaemon
from migrrdma_runtime.engine.engine import Container

Serve = Callable[[dict[str, tuple[int, Any]]], list[str]]
Connect = Callable[[], DockerDaemon]

WEB = {
    "Id": "c0ffee",
    "Name": "/web",
    "HostConfig": {"Runtime": "migrrdma"},
    "State": {"Running": False},
}


@pytest.fixture(name="daemon")
def _daemon() -> Iterator[Connect]:
    """Connects when it is called, and is closed in the end."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(DockerDaemon()))


VERSION = {"GET /version": (200, {"ApiVersion": "1.45"})}


def test_a_container_is_described(serve: Serve, daemon: Connect) -> None:
    serve({**VERSION, "GET /v1.45/containers/web/json": (200, WEB)})
    assert daemon().container("web") == Container("c0ffee", "web", "migrrdma", running=False)


def test_every_container_is_listed(serve: Serve, daemon: Connect) -> None:
    serve(
        {
            **VERSION,
            "GET /v1.45/containers/json?limit=-1&all=1&size=0&trunc_cmd=0": (200, [{"Id": "c0ffee"}]),
            "GET /v1.45/containers/c0ffee/json": (200, WEB),
        }
    )
    assert [one.name for one in daemon().containers()] == ["web"]


def test_a_checkpoint_is_started(serve: Serve, daemon: Connect) -> None:
    start = "POST /v1.45/containers/c0ffee/start?checkpoint=before-move"
    requests = serve({**VERSION, start: (204, None)})
    daemon().start("c0ffee", "before-move")
    assert requests[-1] == start


def test_what_docker_refuses_is_passed_on_in_one_line(serve: Serve, daemon: Connect) -> None:
    refusal = {"message": "failed to create task:\n  criu failed: type NOTIFY errno 0\n"}
    serve({**VERSION, "POST /v1.45/containers/c0ffee/start?checkpoint=before-move": (500, refusal)})
    with pytest.raises(DockerError) as caught:
        daemon().start("c0ffee", "before-move")
    assert str(caught.value) == "failed to create task: criu failed: type NOTIFY errno 0"


def test_an_unknown_container_is_named(serve: Serve, daemon: Connect) -> None:
    serve({**VERSION, "GET /v1.45/containers/web/json": (404, {"message": "No such container: web"})})
    with pytest.raises(DockerError, match=r"^container web: No such container: web$"):
        daemon().container("web")
