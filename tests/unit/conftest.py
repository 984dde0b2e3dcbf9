"""A fake host, a fake Docker and a cluster of agents: what the real ones will not be on command."""

import json
import socketserver
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import cluster
import pytest
from cluster import Cluster

from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine.docker import Docker
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.host.machine import Host

Scenario = Callable[[Cluster], Awaitable[None]]
MakeDocker = Callable[..., Docker]
Answer = tuple[int, Any]
Answers = dict[str, Answer | Callable[[], Answer]]
Serve = Callable[[Answers], list[str]]


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


@pytest.fixture(name="serve")
def _serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A daemon on a socket of its own, which $DOCKER_HOST names; yields the requests it got."""
    path = str(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    servers: list[socketserver.ThreadingUnixStreamServer] = []

    def serve(answers: Answers) -> list[str]:
        requests: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(f"{self.command} {self.path}")
                answer = answers[f"{self.command} {self.path}"]
                status, body = answer() if callable(answer) else answer
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_args: object) -> None:
                """Not to the test's output."""

        server = socketserver.ThreadingUnixStreamServer(path, Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        return requests

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario on a cluster that is taken down afterwards."""
    return lambda scenario: cluster.play(tmp_path, scenario)
