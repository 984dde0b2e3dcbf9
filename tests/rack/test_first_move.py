"""Unmodified RDMA programs move between hosts by docker's commands; the other end notices a pause."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.plan import PEER
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_RESULT = r"^ *[0-9]+ +[0-9]+ +"
"""A line of figures, which every perftest tool prints each time its duration has passed."""


def _pair(
    src: Shell,
    peer: Shell,
    containers: Register,
    tool: str,
    *options: str,
    on_container: tuple[str, ...] = (),
) -> tuple[Container, Container]:
    """A perftest client on ``src`` and its server on ``peer``, both printing figures."""
    command = (tool, "-d", "rxe0", "-x", "1", "-s", "4096", "--run_infinitely", "-D", "2", *options)
    server = containers(rdma.container(peer, "server", command, "10.78.0.151", on_container))
    server.run().wait_for_line("Waiting for client")
    client = containers(rdma.container(src, "client", (*command, "10.78.0.151"), "10.78.0.150", on_container))
    client.run().wait_for_line(_RESULT, 90)
    return client, server


def _both_go_on(*both: Container) -> None:
    for one in both:
        one.wait_for_line(_RESULT, 90, after=len(one.lines()) + 1)
        assert one.running()
        bad = [line for line in one.lines() if "rror" in line or "ailed" in line]
        assert not bad, bad


@pytest.mark.parametrize(
    ("tool", "options"),
    [
        ("ib_send_bw", ()),
        pytest.param("ib_write_bw", ("-q", "8"), marks=pytest.mark.soak),
        pytest.param("ib_read_bw", ("-e",), marks=pytest.mark.soak),
        pytest.param("ib_send_lat", (), marks=pytest.mark.soak),
    ],
)
def test_a_client_moves_and_both_ends_go_on(
    src: Shell, dst: Shell, peer: Shell, containers: Register, tool: str, options: tuple[str, ...]
) -> None:
    client, server = _pair(src, peer, containers, tool, *options)
    moved = containers(client.on(dst))
    rdma.move(client, dst)
    _both_go_on(moved, server)


@pytest.mark.soak
def test_a_server_moves(src: Shell, dst: Shell, peer: Shell, containers: Register) -> None:
    client, server = _pair(src, peer, containers, "ib_write_bw")
    moved = containers(server.on(dst))
    rdma.move(server, dst)
    _both_go_on(client, moved)


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
    command = ("ib_send_bw", "-d", "rxe0", "-x", "1", "-s", "4096", "--run_infinitely", "-D", "2")
    plain = ("--annotation=org.migrrdma.enable=false",)
    server = containers(rdma.container(peer, "server", command, "10.78.0.151", plain))
    server.run().wait_for_line("Waiting for client")
    client = containers(rdma.container(src, "client", (*command, "10.78.0.151"), "10.78.0.150"))
    client.run().wait_for_line(_RESULT, 90)
    _is_refused(client, server, "no process with the guest library")


def test_a_process_that_shed_the_guest_library_is_refused(
    src: Shell, peer: Shell, containers: Register
) -> None:
    command = ("ib_send_bw", "-d", "rxe0", "-x", "1", "-s", "4096", "--run_infinitely", "-D", "2")
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


def test_what_the_guest_library_does_not_know_yet_is_refused_by_name(
    src: Shell, peer: Shell, containers: Register
) -> None:
    client, server = _pair(src, peer, containers, "ib_send_bw", "-c", "UD")
    _is_refused(client, server, "cannot be migrated", "UD")
