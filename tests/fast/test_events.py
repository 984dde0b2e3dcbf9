"""Completion events through moves: each completion that was asked for has one, and no event is without its completion.

libibverbs lets an event come without one, and a program has to expect it. But perftest's latency tools poll one
completion for each event: an event too many, and then two completions of which the second has none any more, and they
stand still.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer
from workload_containers import bring, workload_container

_ADDRESSES = {"serves": "10.78.0.194", "asks": "10.78.0.195"}


def _container(node: Shell, name: str) -> RuntimeContainer:
    words = ["serve"] if name == "serves" else ["ask", _ADDRESSES["serves"]]
    return workload_container(node, "by_events", name, _ADDRESSES[name], words)


@pytest.fixture
def on_every_node(src: Shell, dst: Shell, peer: Shell, tmp_path: Path) -> Iterator[None]:
    with bring("by_events", (src, dst, peer), tmp_path, _ADDRESSES, _container):
        yield


def _go_on(*containers: RuntimeContainer) -> None:
    """Every connection of theirs goes on by event after event."""
    for one in containers:
        seen = len(one.lines())
        one.shell.run("migrrdma-runtime", "kill", one.name, "USR1")
        one.wait_for_line("^turns ", after=seen)


def test_each_completion_has_its_event_and_each_event_its_completion(
    src: Shell, dst: Shell, peer: Shell, on_every_node: None
) -> None:
    del on_every_node
    server = _container(src, "serves").run()
    server.wait_for_line("^listening$")
    client = _container(peer, "asks").run()
    _go_on(client, server)
    said: set[str] = set()
    for mover, node in (("server", dst), ("client", src), ("server", peer), ("client", dst)):
        said |= {*server.lines(), *client.lines()}
        if mover == "server":
            server = server.move(node)
        else:
            client = client.move(node)
        _go_on(client, server)
    assert said | {*server.lines(), *client.lines()} == {"listening", "connected", "turns 20"}
