"""Two containers that talk by datagrams move, one after the other and again: each is heard at its old name.

What is under way to one that moves may be lost, and nothing else: before and after, every question is answered. One end
posts its sends by ``ibv_wr_*``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer
from workload_containers import bring, workload_container

_ADDRESSES = {"answers": "10.78.0.192", "asks": "10.78.0.193"}


@pytest.fixture
def on_every_node(src: Shell, dst: Shell, peer: Shell, tmp_path: Path) -> Iterator[None]:
    with bring("datagrams", (src, dst, peer), tmp_path, _ADDRESSES, _container):
        yield


def _container(node: Shell, name: str, *how: str) -> RuntimeContainer:
    words = ["serve", *how] if name == "answers" else ["ask", _ADDRESSES["answers"], *how]
    return workload_container(node, "datagrams", name, _ADDRESSES[name], words)


def _signal(container: RuntimeContainer, signal: str) -> None:
    container.shell.run("migrrdma-runtime", "kill", container.name, signal)


def _as_before(client: RuntimeContainer) -> None:
    """What was lost until now was lost in the move: from here on every question is answered."""
    seen = len(client.lines())
    _signal(client, "USR2")
    client.wait_for_line("^lost: ", after=seen)
    client.wait_for_line("^answers: ", after=len(client.lines()))


def _kinds(*containers: RuntimeContainer) -> set[str]:
    return {line.partition(":")[0] for one in containers for line in one.lines()}


def test_both_are_heard_move_after_move(src: Shell, dst: Shell, peer: Shell, on_every_node: None) -> None:
    del on_every_node
    server = _container(src, "answers", "built").run()
    server.wait_for_line("^listening$")
    client = _container(peer, "asks").run()
    client.wait_for_line("^answers: ")
    said: set[str] = set()
    for who, node in (("answers", dst), ("asks", src), ("answers", peer), ("asks", dst)):
        _signal(client, "USR1")
        said |= _kinds(client, server)
        if who == "answers":
            server = server.move(node)
        else:
            client = client.move(node)
        _as_before(client)
    assert said | _kinds(client, server) == {"listening", "answers", "lost"}


def test_both_are_heard_where_the_address_stays_behind(
    src: Shell, dst: Shell, peer: Shell, on_every_node: None
) -> None:
    """The application names, and is shown, the address of before; forth, back, and at the other end."""
    del on_every_node
    server = _container(src, "answers").run()
    server.wait_for_line("^listening$")
    client = _container(peer, "asks", "built").run()
    client.wait_for_line("^answers: ")
    said: set[str] = set()
    for turn, (who, node) in enumerate((("answers", dst), ("asks", src), ("answers", src))):
        _signal(client, "USR1")
        said |= _kinds(client, server)
        leaves = server if who == "answers" else client
        leaves.checkpoint()
        leaves.remove()
        there = replace(leaves, address=f"10.78.0.{195 + turn}").restore(node)
        server, client = (there, client) if who == "answers" else (server, there)
        _as_before(client)
    assert said | _kinds(client, server) == {"listening", "answers", "lost"}
