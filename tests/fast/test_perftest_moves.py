"""perftest's tools and libibverbs' pingpongs move in mid-traffic, either end: by their figures, or by how they end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from at_work import wait_until_at_work
from migrrdma_lab.errors import RackError
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import NODES
from migrrdma_lab.shell import Shell
from perftest import perftest
from runtime_container import RuntimeContainer

_FIGURES = r"^ *[0-9]+ +[0-9]+ +"
_ADDRESSES = {"client": "10.78.0.186", "server": "10.78.0.187"}

_TELLING_ITS_END = ("sh", "-c", '"$@"; echo "ended with $?"', "sh")
"""The command that follows, with its exit code: with a container of the runtime's own that is gone."""

_LATENCY_NS = 1_000_000
"""Of the wire, so that the ends' speed is not the machine's: who counts would be through in no time, or never."""

_LONGEST_NAME = 15
"""Of a process."""

_UNTIL_IT_LISTENS = """
until ip netns exec "$1" ss -Hltn 'sport = :18515' | grep -q LISTEN; do sleep 0.05; done
"""
"""The pingpongs do not say when."""


@pytest.fixture
def nodes(src: Shell, dst: Shell, peer: Shell) -> Iterator[tuple[Shell, Shell, Shell]]:
    yield src, dst, peer
    for node in (src, dst, peer):
        for name, address in _ADDRESSES.items():
            RuntimeContainer(node, name, address, []).remove()


@pytest.fixture
def slow_wire(rack: FastRack) -> Iterator[None]:
    _set_latency(rack, _LATENCY_NS)
    yield
    _set_latency(rack, 0)


def _set_latency(rack: FastRack, nanoseconds: int) -> None:
    for node in NODES:
        rack.devices.daemon.control.set(node.name, "latency", nanoseconds)


def _pair(
    nodes: tuple[Shell, Shell, Shell], command: tuple[str, ...]
) -> tuple[RuntimeContainer, RuntimeContainer]:
    """A client on the first node, its server on the third, and what they need where they will move to."""
    src, dst, peer = nodes
    clients = (*command, _ADDRESSES["server"])
    for name, words, places in (("client", clients, (dst, src)), ("server", command, (src, peer))):
        for node in places:
            one = _container(node, name, words)
            one.remove()
            one.prepare()
    server = _container(peer, "server", command).run()
    peer.run("sh", "-euc", _UNTIL_IT_LISTENS, "until", server.name)
    return _container(src, "client", clients).run(), server


def _container(node: Shell, name: str, command: tuple[str, ...]) -> RuntimeContainer:
    # By XRC the tools open a file there, by which processes find each other's domain.
    return RuntimeContainer(node, name, _ADDRESSES[name], ["stdbuf", "-oL", *command], writable=["/tmp"])


def _goes_on(client: RuntimeContainer) -> None:
    # The line that is under way at the move, and a whole one after it.
    client.wait_for_line(_FIGURES, after=len(client.lines()) + 1)


def _is_at_work(client: RuntimeContainer, tool: str) -> None:
    pid = client.shell.run("pgrep", "-x", tool[:_LONGEST_NAME]).stdout.strip()
    wait_until_at_work(client.shell, pid)


def _move_server(server: RuntimeContainer, to: Shell, mode: str) -> RuntimeContainer:
    """As it is then: nobody can tell who sends to a process that only hears, and its move is refused."""
    if "_bw -c UD" not in mode:
        return server.move(to)
    with pytest.raises(RackError, match="a UD QP that has received and never sent"):
        server.checkpoint()
    return server


def _errors(*both: RuntimeContainer) -> list[str]:
    return [line for one in both for line in one.lines() if "rror" in line or "ailed" in line]


_MODES = (
    "ib_send_bw -c UC -q 4 -s 2048 --use_old_post_send", "ib_send_bw -c UD -s 2048", "ib_write_bw -q 8 -s 2048",
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
"""Those of tests/transparency that tell how they go on."""

_SILENT_MODES = ("ib_read_bw -s 2048 -e",)
_MORE_SILENT_MODES = (
    "ib_send_bw -s 2048 -e", "ib_send_bw -s 2048 -b", "ib_send_bw -s 2048 -b -q 4 -e", "ib_send_bw -c UD -s 2048 -e",
    "ib_write_bw -s 2048 -b", "ib_read_bw -s 2048 -b",
    "ib_atomic_bw -b",
    "ib_send_lat -s 2048", "ib_send_lat -c UC -s 2048", "ib_send_lat -c UD -s 2048",
    "ib_send_lat -s 2048 -e", "ib_send_lat -c UD -s 2048 -e",
    "ib_send_lat -I 16 -s 16",
    "ib_write_lat -s 2048", "ib_write_lat -c UC -s 2048", "ib_write_lat -I 16 -s 16",
    "ib_read_lat -s 2048", "ib_atomic_lat",
    "ibv_rc_pingpong -c", "ibv_rc_pingpong -c -e", "ibv_rc_pingpong -c -N",
    "ibv_uc_pingpong", "ibv_ud_pingpong", "ibv_srq_pingpong", "ibv_xsrq_pingpong",
)  # fmt: skip
"""The others of tests/transparency: they print their figures at their end."""


@pytest.mark.parametrize(
    "mode", [*_MODES, *(pytest.param(one, marks=pytest.mark.soak) for one in _MORE_MODES)]
)
def test_both_ends_move_and_go_on(nodes: tuple[Shell, Shell, Shell], mode: str) -> None:
    client, server = _pair(nodes, perftest(*mode.split(), "--run_infinitely", "-D", "1"))
    client.wait_for_line(_FIGURES)
    left = [client, server]
    client = client.move(nodes[1])
    _goes_on(client)
    server = _move_server(server, nodes[0], mode)
    _goes_on(client)
    assert _errors(*left, client, server) == []


def _iterations(mode: str) -> int:
    """Of each queue pair: some seconds on that wire; while an end is away there are none."""
    if "ibv_srq_pingpong" in mode:
        return 15_000
    if "_bw" not in mode:
        return 3_000
    # Few reads and atomics are under way at a time.
    return (300_000 if "send" in mode or "write" in mode else 50_000) // _qps(mode)


def _qps(mode: str) -> int:
    return 4 if "-q 4" in mode else 1


def _with_an_end(mode: str) -> tuple[str, ...]:
    tool, *options = mode.split()
    count = ("-n", str(_iterations(mode)))
    if tool.startswith("ibv_"):
        return (tool, "-d", "rxe0", "-g", "1", *options, *count)
    return perftest(tool, *options, *count)


def _may_wait_for_ever(mode: str) -> bool:
    """A datagram that is on the wire when its receiver is stopped is lost, and these tools ask no second time."""
    return "lat -c UD" in mode or "ud_pingpong" in mode


def _is_there(container: RuntimeContainer, tool: str) -> None:
    assert container.shell.run("pgrep", "-x", tool[:_LONGEST_NAME]).stdout.strip()


@pytest.mark.usefixtures("slow_wire")
@pytest.mark.parametrize(
    "mode", [*_SILENT_MODES, *(pytest.param(one, marks=pytest.mark.soak) for one in _MORE_SILENT_MODES)]
)
def test_both_ends_move_and_reach_their_end(nodes: tuple[Shell, Shell, Shell], mode: str) -> None:
    client, server = _pair(nodes, (*_TELLING_ITS_END, *_with_an_end(mode)))
    client.wait_for_line("^ *#bytes|^ *remote")
    tool = mode.split(maxsplit=1)[0]
    _is_at_work(client, tool)
    left = [client, server]
    client = client.move(nodes[1])
    _is_at_work(client, tool)
    server = _move_server(server, nodes[0], mode)
    for one in (client, server):
        try:
            one.wait_for_line("^ended with", 60 if _may_wait_for_ever(mode) else 300)
        except RackError:
            if not _may_wait_for_ever(mode):
                raise
            _is_there(one, tool)
            assert _errors(*left, client, server) == []
            return
        assert one.lines()[-1] == "ended with 0", one.lines()
    told = {"success", str(_iterations(mode) * _qps(mode))}
    assert any(told.intersection(line.split()) for line in client.lines()), client.lines()
    assert _errors(*left, client, server) == []
