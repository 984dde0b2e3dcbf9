"""Unmodified RDMA programs move between hosts by docker's commands; the other end notices a pause."""

from __future__ import annotations

import json
import re

import pytest
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import PEER
from migrrdma_lab.shell import Shell
from perftest import RESULT, Register, both_go_on, endless, has_no_error, pair, qps

_TX_DEPTH = 128
"""How many messages per QP perftest's bandwidth tools keep under way."""


def _both_end_well(*both: Container) -> None:
    """Those that have an end reach it, with figures and without an error."""
    for one in both:
        if "--run_infinitely" not in one.command:
            code = int(one.docker("wait", one.name, timeout=900).stdout)
            assert code == 0, one.lines()
            has_no_error(one)


_MOVES = {
    # tool, options, and who moves to which node, one after the other; one for each transport
    "8 QPs by events": (("ib_read_bw", "-q", "8", "-e"), ("client", "dst")),
    "UC": (("ib_send_bw", "-c", "UC"), ("server", "dst")),
}
_MORE_MOVES = {
    f"{tool} {' '.join(options)}": (
        (tool, *options),
        ("client", "dst"),
        ("server", "src"),
        ("client", "peer"),
    )
    for tool in ("ib_send_bw", "ib_write_bw", "ib_read_bw", "ib_send_lat")
    for options in ((), ("-e",), ("-q", "8"), ("-q", "8", "-e"))
    if not (tool == "ib_send_lat" and options)  # it measures one message at a time
}
_UNHEARD = {
    # Its server only hears: nobody could tell who sends to it.
    "UD": (("ib_send_bw", "-c", "UD"), ("client", "dst")),
}


@pytest.mark.parametrize(
    ("command", "moves"),
    [pytest.param(words, moves, id=name) for name, (words, *moves) in _MOVES.items()]
    + [
        pytest.param(words, moves, id=name, marks=pytest.mark.soak)
        for name, (words, *moves) in (*_MORE_MOVES.items(), *_UNHEARD.items())
    ],
)
def test_one_end_moves_and_both_go_on(
    src: Shell,
    dst: Shell,
    peer: Shell,
    containers: Register,
    request: pytest.FixtureRequest,
    command: tuple[str, ...],
    moves: list[tuple[str, str]],
) -> None:
    nodes = {"src": src, "dst": dst, "peer": peer}
    ends = dict(zip(("client", "server"), pair(src, peer, containers, *command), strict=True))
    moved = []
    for who, where in moves:
        moved.append((nodes[where], _draining_takes(ends["client"])))
        there = containers(ends[who].on(nodes[where]))
        rdma.move(ends[who], nodes[where], staged="UC" in command)  # of the two ways each is shown
        ends[who] = there
        both_go_on(*ends.values())
    _both_end_well(*ends.values())
    for (
        one
    ) in ends.values():  # beside what Soft-RoCE's workers do for them a node starts a Python only slowly
        one.remove()
    if request.config.getoption("--soak"):
        for node, draining in moved:
            _was_quick(node, draining)


def _draining_takes(client: Container) -> float | None:
    """Bytes under way, by the rate at which they pass: seconds; None if the client has printed no rate."""
    figures = [line.split() for line in client.lines() if re.match(RESULT, line)]
    rates = [float(words[3]) for words in figures if len(words) == 5 and float(words[3]) > 0]
    return _TX_DEPTH * qps(client.command) * 4096 / (min(rates) * (1 << 20)) if rates else None


def _was_quick(node: Shell, draining: float | None) -> None:
    """Wait-before-stop took no more than the bytes under way twice; rebuilding less than CRIU's restore.

    What the agents' own conversation takes on machines that are emulated is told by the step before, in which they do
    nothing else. Where other tests run beside this one nothing tells it, and the clocks of the hosts, by which a
    downtime is the difference of two, come apart by more than that: so this is for `make soak` alone.
    """
    found = json.loads(node.run("migrrdma", "timeline", "--json").stdout)
    steps = {step["name"]: step["seconds"] for step in found["timeline"]}
    if draining is not None:
        assert steps["drain"] <= 2 * draining + 0.2 + steps["suspend"], (steps, draining)
    assert steps["rebuild"] + steps["connect"] < steps["criu"], steps
    # Nobody waits for who sends datagrams.
    assert not found["blackout"] or found["downtime"] < max(found["blackout"].values())


def test_on_the_hosts_network_it_moves_with_its_tcp_connections_closed(
    src: Shell, dst: Shell, peer: Shell, containers: Register
) -> None:
    """There is no address that could move with it; a CRIU option of the user's says what becomes of TCP."""
    for node in (src, dst):
        node.sh("echo tcp-close > /root/tcp-close.conf")
    command = endless("ib_send_bw")
    options = ("--network=host", "--device=/dev/infiniband/uverbs0", "--ulimit=memlock=-1", "-t")
    closing = ("--annotation=org.criu.config=/root/tcp-close.conf",)
    server = containers(Container(peer, "server", command, options)).run()
    server.wait_for_line("Waiting for client")
    client = containers(Container(src, "client", (*command, PEER.data_address), (*options, *closing))).run()
    client.wait_for_line(RESULT, 90)
    moved = containers(client.on(dst))
    rdma.move(client, dst)
    both_go_on(moved, server)


def test_the_hosts_device_is_seen_beside_an_address_of_the_containers_own(
    src: Shell, containers: Register
) -> None:
    seen = containers(rdma.container(src, "seen", ("ibv_devices",), "10.78.0.150")).run()
    seen.wait_for_line("rxe0")
