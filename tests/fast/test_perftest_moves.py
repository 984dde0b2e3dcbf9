"""perftest's tools move in mid-traffic, either end: one line of figures after the other, and no error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from migrrdma_lab.shell import Shell
from perftest import perftest
from runtime_container import RuntimeContainer

_FIGURES = r"^ *[0-9]+ +[0-9]+ +"
_ADDRESSES = {"client": "10.78.0.186", "server": "10.78.0.187"}


@pytest.fixture
def nodes(src: Shell, dst: Shell, peer: Shell) -> Iterator[tuple[Shell, Shell, Shell]]:
    yield src, dst, peer
    for node in (src, dst, peer):
        for name, address in _ADDRESSES.items():
            RuntimeContainer(node, name, address, []).remove()


def _container(node: Shell, name: str, command: tuple[str, ...]) -> RuntimeContainer:
    return RuntimeContainer(node, name, _ADDRESSES[name], ["stdbuf", "-oL", *command])


def _goes_on(client: RuntimeContainer) -> None:
    # The line that is under way at the move, and a whole one after it.
    client.wait_for_line(_FIGURES, after=len(client.lines()) + 1)


def _errors(*both: RuntimeContainer) -> list[str]:
    return [line for one in both for line in one.lines() if "rror" in line or "ailed" in line]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("ib_send_bw", "-c", "UC", "-q", "4"), id="UC, receives"),
        pytest.param(("ib_write_bw", "-c", "UC"), id="UC, writes", marks=pytest.mark.soak),
    ],
)
def test_both_ends_move_and_go_on(nodes: tuple[Shell, Shell, Shell], words: tuple[str, ...]) -> None:
    src, dst, peer = nodes
    command = perftest(*words, "-s", "4096", "--run_infinitely", "-D", "1", "--use_old_post_send")
    for node in (src, dst):
        _container(node, "client", (*command, _ADDRESSES["server"])).remove()
        _container(node, "client", (*command, _ADDRESSES["server"])).prepare()
    for node in (peer, src):
        _container(node, "server", command).remove()
        _container(node, "server", command).prepare()
    server = _container(peer, "server", command).run()
    server.wait_for_line("Waiting for client")
    client = _container(src, "client", (*command, _ADDRESSES["server"])).run()
    client.wait_for_line(_FIGURES)
    left = [client, server]
    client = client.move(dst)
    _goes_on(client)
    server = server.move(src)
    _goes_on(client)
    assert _errors(*left, client, server) == []
