"""perftest's tools move in mid-traffic, either end: one line of figures after the other, and no error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from migrrdma_lab.errors import RackError
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
    # By XRC the tools open a file there, by which processes find each other's domain.
    return RuntimeContainer(node, name, _ADDRESSES[name], ["stdbuf", "-oL", *command], writable=["/tmp"])


def _goes_on(client: RuntimeContainer) -> None:
    # The line that is under way at the move, and a whole one after it.
    client.wait_for_line(_FIGURES, after=len(client.lines()) + 1)


def _errors(*both: RuntimeContainer) -> list[str]:
    return [line for one in both for line in one.lines() if "rror" in line or "ailed" in line]


_ONE_WAY = "ib_send_bw -c UD -s 2048"
"""Nobody can tell who sends to a process that only hears: its move is refused."""

_MODES = (
    "ib_send_bw -c UC -q 4 -s 2048 --use_old_post_send", _ONE_WAY, "ib_write_bw -q 8 -s 2048",
    "ib_send_bw -c XRC -q 4 -s 2048",
)  # fmt: skip
_MORE_MODES = (
    "ib_send_bw -s 2048", "ib_send_bw -I 16 -s 16", "ib_send_bw -q 8 -s 2048", "ib_send_bw -s 2048 --use_old_post_send",
    "ib_send_bw -s 2048 --use-srq", "ib_send_bw -s 2048 --use-srq -q 4",
    "ib_write_bw -s 2048", "ib_write_bw -c UC -s 2048", "ib_write_bw -I 16 -s 16",
    "ib_write_bw -s 2048 --use_old_post_send",
    "ib_read_bw -s 2048", "ib_read_bw -q 8 -s 2048", "ib_read_bw -s 2048 --use_old_post_send",
    "ib_atomic_bw", "ib_atomic_bw -q 8", "ib_atomic_bw --use_old_post_send",
    "ib_send_bw -c XRC -s 2048", "ib_send_bw -c XRC -s 2048 --use_old_post_send", "ib_write_bw -c XRC -s 2048",
    "ib_read_bw -c XRC -s 2048", "ib_atomic_bw -c XRC",
)  # fmt: skip
"""Those of tests/transparency that tell how they go on, which latencies, and ``-b`` and ``-e``, do not."""


@pytest.mark.parametrize(
    "mode", [*_MODES, *(pytest.param(one, marks=pytest.mark.soak) for one in _MORE_MODES)]
)
def test_both_ends_move_and_go_on(nodes: tuple[Shell, Shell, Shell], mode: str) -> None:
    src, dst, peer = nodes
    command = perftest(*mode.split(), "--run_infinitely", "-D", "1")
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
    if mode == _ONE_WAY:
        with pytest.raises(RackError, match="a UD QP that has received and never sent"):
            server.checkpoint()
    else:
        server = server.move(src)
    _goes_on(client)
    assert _errors(*left, client, server) == []
