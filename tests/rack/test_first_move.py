"""Unmodified RDMA programs move between hosts by docker's commands; the other end notices a pause."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.plan import PEER
from migrrdma_lab.shell import Shell
from perftest import perftest

Register = Callable[[Container], Container]

ROOT = Path(__file__).resolve().parents[2]

_DRAIN_DEADLINE_S = 30
"""``deadlines.drain`` of an agent that is not told otherwise."""

_TX_DEPTH = 128
"""How many messages per QP perftest's bandwidth tools keep under way."""

_RESULT = r"^ *[0-9]+ +[0-9]+ +"
"""A line of figures, which every perftest tool prints each time its duration has passed."""


def _perftest(tool: str, *options: str) -> tuple[str, ...]:
    """The tool's command line: without an end and printing figures, or with one if it cannot do that."""
    rest: tuple[str, ...]
    if tool.endswith("_lat"):
        # By count and not by time, of which a move may take any: it does not end while the other end is away.
        rest = ("-s", "4096", "-n", "10000")
    elif "-e" in options:
        # It must not end before the move begins, which takes Docker some seconds: a minute at 45 MB/s. With a deep
        # queue Soft-RoCE's workers, which are not nice, would keep the processor until the last byte.
        rest = ("-s", "65536", "-t", "2", "-n", str(42_000 // _qps(options)))
    else:
        rest = ("-s", "4096", "--run_infinitely", "-D", "2")
    # A node has one processor; what polls must not keep Docker and the agent from it.
    return ("nice", "-n", "19", *perftest(tool, *rest, *options))


def _qps(options: Sequence[str]) -> int:
    return int(options[options.index("-q") + 1]) if "-q" in options else 1


def _pair(
    src: Shell, peer: Shell, containers: Register, tool: str, *options: str
) -> tuple[Container, Container]:
    """A perftest client on ``src`` and its server on ``peer``, with traffic between them."""
    command = _perftest(tool, *options)
    server = containers(rdma.container(peer, "server", command, "10.78.0.151"))
    server.run().wait_for_line("Waiting for client")
    client = containers(rdma.container(src, "client", (*command, "10.78.0.151"), "10.78.0.150"))
    client.run().wait_for_line(_RESULT if _prints_figures(client) else "^ *#bytes", 90)
    return client, server


def _prints_figures(one: Container) -> bool:
    """Whether it does so all the time: a server that only lets its memory be written or read has none."""
    return "--run_infinitely" in one.command and (
        one.name == "client" or any(word.startswith("ib_send") for word in one.command)
    )


def _both_go_on(*both: Container) -> None:
    for one in both:
        if _prints_figures(one):
            one.wait_for_line(_RESULT, 90, after=len(one.lines()) + 1)
        if "--run_infinitely" in one.command:
            assert one.running(), one.lines()
        _has_no_error(one)


def _both_end_well(*both: Container) -> None:
    """Those that have an end reach it, with figures and without an error."""
    for one in both:
        if "--run_infinitely" not in one.command:
            code = int(one.docker("wait", one.name, timeout=900).stdout)
            assert code == 0, one.lines()
            _has_no_error(one)


def _has_no_error(one: Container) -> None:
    bad = [line for line in one.lines() if "rror" in line or "ailed" in line]
    assert not bad, bad


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


@pytest.mark.parametrize(
    ("command", "moves"),
    [pytest.param(words, moves, id=name) for name, (words, *moves) in _MOVES.items()]
    + [
        pytest.param(words, moves, id=name, marks=pytest.mark.soak)
        for name, (words, *moves) in _MORE_MOVES.items()
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
    ends = dict(zip(("client", "server"), _pair(src, peer, containers, *command), strict=True))
    moved = []
    for who, where in moves:
        moved.append((nodes[where], _draining_takes(ends["client"])))
        there = containers(ends[who].on(nodes[where]))
        rdma.move(ends[who], nodes[where], staged="UC" in command)  # of the two ways each is shown
        ends[who] = there
        _both_go_on(*ends.values())
    _both_end_well(*ends.values())
    for (
        one
    ) in ends.values():  # beside what Soft-RoCE's workers do for them a node starts a Python only slowly
        one.remove()
    for node, draining in moved:
        _was_quick(node, draining if request.config.getoption("--soak") else None)


def _draining_takes(client: Container) -> float | None:
    """Bytes under way, by the rate at which they pass: seconds; None if the client has printed no rate."""
    figures = [line.split() for line in client.lines() if re.match(_RESULT, line)]
    rates = [float(words[3]) for words in figures if len(words) == 5 and float(words[3]) > 0]
    return _TX_DEPTH * _qps(client.command) * 4096 / (min(rates) * (1 << 20)) if rates else None


def _was_quick(node: Shell, draining: float | None) -> None:
    """Wait-before-stop took no more than the bytes under way twice; rebuilding less than CRIU's restore.

    What the agents' own conversation takes on machines that are emulated is told by the step before, in which they do
    nothing else; and where other tests run beside this one, nothing tells it: the drain is judged by `make soak` alone.
    """
    found = json.loads(node.run("migrrdma", "timeline", "--json").stdout)
    steps = {step["name"]: step["seconds"] for step in found["timeline"]}
    if draining is not None:
        assert steps["drain"] <= 2 * draining + 0.2 + steps["suspend"], (steps, draining)
    assert steps["rebuild"] + steps["connect"] < steps["criu"], steps
    assert found["downtime"] < max(found["blackout"].values())


def test_on_the_hosts_network_it_moves_with_its_tcp_connections_closed(
    src: Shell, dst: Shell, peer: Shell, containers: Register
) -> None:
    """There is no address that could move with it; a CRIU option of the user's says what becomes of TCP."""
    for node in (src, dst):
        node.sh("echo tcp-close > /root/tcp-close.conf")
    command = _perftest("ib_send_bw")
    options = ("--network=host", "--device=/dev/infiniband/uverbs0", "--ulimit=memlock=-1", "-t")
    closing = ("--annotation=org.criu.config=/root/tcp-close.conf",)
    server = containers(Container(peer, "server", command, options)).run()
    server.wait_for_line("Waiting for client")
    client = containers(Container(src, "client", (*command, PEER.data_address), (*options, *closing))).run()
    client.wait_for_line(_RESULT, 90)
    moved = containers(client.on(dst))
    rdma.move(client, dst)
    _both_go_on(moved, server)


def test_the_hosts_device_is_seen_beside_an_address_of_the_containers_own(
    src: Shell, containers: Register
) -> None:
    seen = containers(rdma.container(src, "seen", ("ibv_devices",), "10.78.0.150")).run()
    seen.wait_for_line("rxe0")


def _is_refused(client: Container, server: Container, *reasons: str) -> None:
    """The checkpoint fails in one line that gives the reasons, and both ends go on."""
    with pytest.raises(NodeCommandError) as failure:
        client.checkpoint("refused")
    said = failure.value.stderr
    assert said.count("\n") == 1, said
    for reason in reasons:
        assert reason in said, said
    _both_go_on(client, server)


def test_a_partner_without_the_guest_library_is_refused(
    src: Shell, peer: Shell, containers: Register
) -> None:
    command = _perftest("ib_send_bw")
    plain = ("--annotation=org.migrrdma.enable=false",)
    server = containers(rdma.container(peer, "server", command, "10.78.0.151", plain))
    server.run().wait_for_line("Waiting for client")
    client = containers(rdma.container(src, "client", (*command, "10.78.0.151"), "10.78.0.150"))
    client.run().wait_for_line(_RESULT, 90)
    _is_refused(client, server, "no process with the guest library")


def test_a_process_that_shed_the_guest_library_is_refused(
    src: Shell, peer: Shell, containers: Register
) -> None:
    command = _perftest("ib_send_bw")
    server = containers(rdma.container(peer, "server", command, "10.78.0.151"))
    server.run().wait_for_line("Waiting for client")
    shed = ("env", "-u", "LD_PRELOAD", *command, "10.78.0.151")
    client = containers(rdma.container(src, "client", shed, "10.78.0.150"))
    client.run().wait_for_line(_RESULT, 90)
    _is_refused(client, server, "without the guest library")


@pytest.fixture
def agent_down(src: Shell) -> Iterator[None]:
    src.run("systemctl", "stop", "migrrdma-agent")
    yield
    src.run("systemctl", "start", "migrrdma-agent")


@pytest.mark.usefixtures("agent_down")
def test_without_an_agent_rdma_is_refused_and_ordinary_containers_work(
    src: Shell, peer: Shell, containers: Register
) -> None:
    client, server = _pair(src, peer, containers, "ib_send_bw")
    _is_refused(client, server, "the agent of this host cannot be reached", "systemctl start migrrdma-agent")
    ordinary = containers(Container(src, "ordinary")).run()
    ordinary.wait_for_line("^2$")
    ordinary.checkpoint("fine")


@pytest.fixture
def partner_agent_unreachable(peer: Shell) -> Iterator[None]:
    rule = ("INPUT", "-p", "tcp", "--dport", "50505", "-j", "DROP")
    peer.run("iptables", "-I", *rule)
    yield
    peer.run("iptables", "-D", *rule)


@pytest.mark.usefixtures("partner_agent_unreachable")
def test_an_unreachable_partner_agent_is_named(src: Shell, peer: Shell, containers: Register) -> None:
    client, server = _pair(src, peer, containers, "ib_send_bw")
    _is_refused(client, server, PEER.data_address)


def test_what_cannot_be_moved_is_refused_by_name(src: Shell, containers: Register) -> None:
    src.copy(str(ROOT / "tests" / "workloads" / "only_listens.py"), ":/root/only_listens.py")
    command = ("python3", "/only_listens.py", "rxe0")
    mounted = ("--volume=/root/only_listens.py:/only_listens.py:ro",)
    one = containers(rdma.container(src, "one", command, "10.78.0.150", mounted)).run()
    one.wait_for_line("^0 s with QP ", 90)
    with pytest.raises(NodeCommandError) as failure:
        one.checkpoint("refused")
    said = failure.value.stderr
    assert said.count("\n") == 1, said
    assert "cannot be migrated" in said, said
    assert "a UD QP that has received and never sent" in said, said
    one.wait_for_line("^[0-9]+ s with QP ", after=len(one.lines()))


def test_what_does_not_drain_is_named_and_goes_on(src: Shell, peer: Shell, containers: Register) -> None:
    """The partner posts no receives: the deadline passes, and then everything arrives after all."""
    command = ("python3", "/deaf.py", "rxe0", "1", "10.78.0.151")
    for node in (src, peer):
        node.copy(str(ROOT / "tests" / "workloads" / "deaf.py"), ":/root/deaf.py")
    mounted = ("--volume=/root/deaf.py:/deaf.py:ro",)
    server = containers(rdma.container(peer, "server", command, "10.78.0.151", mounted)).run()
    server.wait_for_line("^waiting")
    client = containers(rdma.container(src, "client", (*command, "send"), "10.78.0.150", mounted)).run()
    client.wait_for_line("^sent")
    began = time.monotonic()
    with pytest.raises(NodeCommandError) as failure:
        client.checkpoint("refused")
    said = failure.value.stderr
    assert said.count("\n") == 1, said
    assert re.search(r"did not drain within the deadline \(.*QP 0x[0-9a-f]+.*post no receives", said), said
    assert time.monotonic() - began < 2 * _DRAIN_DEADLINE_S
    server.docker("kill", "--signal=USR1", server.name)
    client.wait_for_line("^delivered 8")
    server.wait_for_line("^heard 8")
