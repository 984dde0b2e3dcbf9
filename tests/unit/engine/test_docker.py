"""What is said to the Docker daemon over its socket, and how its refusals reach the user."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine.docker import DockerDaemon, split_reference
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


def test_of_a_running_container_its_process_is_known(serve: Serve, daemon: Connect) -> None:
    state = {"Running": True, "Paused": True, "Pid": 4711}
    web = {**WEB, "State": state, "HostConfig": {"Runtime": "migrrdma", "AutoRemove": True}}
    serve({**VERSION, "GET /v1.45/containers/web/json": (200, web)})
    assert daemon().container("web") == Container(
        "c0ffee", "web", "migrrdma", running=True, paused=True, pid=4711, auto_remove=True
    )


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


REMOVE = "DELETE /v1.45/containers/c0ffee?v=True&link=False&force=True"
KILL = "POST /v1.45/containers/c0ffee/kill?signal=SIGKILL"
ENDED = "POST /v1.45/containers/c0ffee/wait?condition=not-running"
GONE = "POST /v1.45/containers/c0ffee/wait?condition=removed"


def test_a_container_that_is_gone_is_removed_already(serve: Serve, daemon: Connect) -> None:
    requests = serve({**VERSION, REMOVE: (404, {"message": "No such container: c0ffee"})})
    daemon().remove("c0ffee")
    assert requests[-1] == REMOVE


def test_a_removal_that_is_under_way_is_waited_for(serve: Serve, daemon: Connect) -> None:
    refusal = {"message": "removal of container c0ffee is already in progress"}
    requests = serve({**VERSION, REMOVE: (409, refusal), GONE: (200, {"StatusCode": 0})})
    daemon().remove("c0ffee")
    assert requests[-1] == GONE


def test_what_keeps_a_container_from_being_removed_is_told(serve: Serve, daemon: Connect) -> None:
    serve({**VERSION, REMOVE: (500, {"message": "device or resource busy"})})
    with pytest.raises(DockerError, match=r"^container c0ffee is not removed: device or resource busy$"):
        daemon().remove("c0ffee")


def test_a_killed_container_is_waited_for(serve: Serve, daemon: Connect) -> None:
    requests = serve({**VERSION, KILL: (204, None), ENDED: (200, {"StatusCode": 137})})
    daemon().kill("c0ffee")
    assert requests[-2:] == [KILL, ENDED]


def test_a_container_that_has_ended_needs_no_kill(serve: Serve, daemon: Connect) -> None:
    refusal = {"message": "container c0ffee is not running"}
    requests = serve({**VERSION, KILL: (409, refusal), ENDED: (200, {"StatusCode": 137})})
    daemon().kill("c0ffee")
    assert requests[-1] == ENDED


def test_what_begins_with_the_name_is_another_container(serve: Serve, daemon: Connect) -> None:
    serve(
        {
            **VERSION,
            "GET /v1.45/containers/c0ff/json": (200, WEB),
            "GET /v1.45/networks/da": (200, {"Name": "data"}),
        }
    )
    connected = daemon()
    assert connected.container_named("c0ff") is None
    assert connected.network("da") is None


def test_a_refused_connection_is_told_in_dockers_words(serve: Serve, daemon: Connect) -> None:
    refusal = {"message": "invalid endpoint settings:\nno such address"}
    serve({**VERSION, "POST /v1.45/networks/a%2Fb/connect": (400, refusal)})
    with pytest.raises(
        DockerError, match=r"^docker network connect a/b: invalid endpoint settings: no such address$"
    ):
        daemon().connect("c0ffee", "a/b", {})


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("nginx", ("nginx", "latest")),
        ("nginx:1.27", ("nginx", "1.27")),
        ("registry:5000/nginx", ("registry:5000/nginx", "latest")),
        ("registry:5000/nginx:1.27", ("registry:5000/nginx", "1.27")),
    ],
)
def test_a_reference_is_a_repository_and_a_tag(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts
