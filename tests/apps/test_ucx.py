"""UCX's own programs move in mid-traffic."""

from __future__ import annotations

from collections.abc import Callable

import applications
import pytest
from applications import Ends, Moves
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_FIGURES = r"^\[thread 0\] +[0-9]+ "
"""What it prints once a second."""

_IO = r"read [0-9.]+ MBs min:[1-9].* write [0-9.]+ MBs min:[1-9]"
"""What io_demo prints once a second, with reads and writes in it."""

_UNTIL_IT_LISTENS = "until docker exec server ss -Hltn 'sport = :13337' | grep -q LISTEN; do sleep 0.2; done"
"""It says that it waits before it listens."""

_TALKS_BY_IPV4 = "UCX_UD_VERBS_ETH_DGID_CHECK=n"
"""UCX before 1.19 looks for the GID where IPv6 has it, but for Mellanox' devices, and drops every datagram."""

_UD_WAITS = "UCX_UD_VERBS_TIMEOUT=60m"
_TCP_WAITS = "UCX_TCP_KEEPIDLE=inf"
"""Whoever does not answer for 30 s, by UD, or for somewhat more than 10 s, by TCP, is given up without a word."""

_TRANSPORTS = {
    # A shared receive queue for all connections, device memory where there is any, address handles while it connects.
    "rc_verbs of uct": ("-d rxe0:1 -x rc_verbs -t am_lat -s 64", ()),
    # UD until it is connected, RC, TCP, and shared memory by files that are unlinked.
    "default": ("-t tag_bw -s 65536", (_TALKS_BY_IPV4, _UD_WAITS, _TCP_WAITS)),
    "ud": ("-t tag_lat -s 64", (_TALKS_BY_IPV4, _UD_WAITS, "UCX_TLS=ud", "UCX_NET_DEVICES=rxe0:1")),
}
_PATIENCE_S = 600
"""It leaves the processor to all others (`applications.container`)."""

_BY_MAKE_TEST = pytest.mark.by_make_test("fast", "emulated")


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param(*each, id=name, marks=[_BY_MAKE_TEST] if name == "default" else [])
        for name, each in _TRANSPORTS.items()
    ],
)
def test_ucx_perftest_goes_on_wherever_its_ends_are(
    nodes: list[Shell], containers: Register, moves: Moves, options: str, environment: tuple[str, ...]
) -> None:
    src, _, peer = nodes
    # By count it would end before the moves are over, or long after, as fast as this machine happens to be.
    perftest = f"ucx_perftest {options} -w 10 -n 1000000000"

    def end(node: Shell, name: str, address: str, words: str) -> Container:
        # Without an open stdin it ends.
        return containers(
            applications.container(node, name, words.split(), address, environment, options=["--interactive"])
        ).run()

    server = end(peer, "server", "10.78.0.151", perftest)
    peer.sh(_UNTIL_IT_LISTENS, timeout=_PATIENCE_S)
    ends = Ends(server, end(src, "client", "10.78.0.150", f"{perftest} 10.78.0.151"))
    ends.client.wait_for_line(_FIGURES, _PATIENCE_S)
    for move in moves:
        ends.move(move)
        ends.client.wait_for_line(_FIGURES, _PATIENCE_S, after=len(ends.client.lines()))
        for one in (ends.server, ends.client):
            assert one.running(), one.lines()
            assert not [line for line in one.lines() if "ERROR" in line or "WARN" in line], one.lines()


def test_io_demo_finds_no_byte_changed_wherever_its_ends_are(
    nodes: list[Shell], containers: Register, moves: Moves
) -> None:
    src, _, peer = nodes
    io_demo = "io_demo -p 1338 -q -d 64:262144"
    # Its connections are made by TCP, without rdma_cm, and UCX wants a lane there that tells of a lost peer.
    environment = ["UCX_TLS=rc_verbs,tcp", _TCP_WAITS, "UCX_KEEPALIVE_INTERVAL=inf"]

    def end(node: Shell, name: str, address: str, words: str) -> Container:
        return containers(applications.container(node, name, words.split(), address, environment)).run()

    server = end(peer, "server", "10.78.0.151", io_demo)
    server.wait_for_line("started listener", _PATIENCE_S)
    client = end(src, "client", "10.78.0.150", f"{io_demo} -o read,write -i 1000000000 -l inf 10.78.0.151")
    ends = Ends(server, client)
    ends.client.wait_for_line(_IO, _PATIENCE_S)
    for move in moves:
        ends.move(move)
        for one in (ends.client, ends.server):
            one.wait_for_line(_IO, _PATIENCE_S, after=len(one.lines()))
            assert not [line for line in one.lines() if "failed" in line or "disconnect" in line], one.lines()
    ends.client.docker("kill", "--signal=INT", ends.client.name)
    _, lines = applications.end_of(ends.client)
    assert any("Client exit with status 'run-time terminated by signal'" in line for line in lines), lines
