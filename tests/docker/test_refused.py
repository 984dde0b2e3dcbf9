"""What cannot be moved is refused in one line that says why, and goes on; so do its partners."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.plan import PEER
from migrrdma_lab.shell import Shell
from perftest import RESULT, Register, both_go_on, endless, pair

ROOT = Path(__file__).resolve().parents[2]

_DRAIN_DEADLINE_S = 30
"""``deadlines.drain`` of an agent that is not told otherwise."""


def _is_refused(client: Container, server: Container, *reasons: str) -> None:
    """The checkpoint fails in one line that gives the reasons, and both ends go on."""
    with pytest.raises(NodeCommandError) as failure:
        client.checkpoint("refused")
    said = failure.value.stderr
    assert said.count("\n") == 1, said
    for reason in reasons:
        assert reason in said, said
    both_go_on(client, server)


def test_a_partner_without_the_guest_library_is_refused(
    src: Shell, peer: Shell, containers: Register
) -> None:
    command = endless("ib_send_bw")
    plain = ("--annotation=org.migrrdma.enable=false",)
    server = containers(rdma.container(peer, "server", command, "10.78.0.151", plain))
    server.run().wait_for_line("Waiting for client")
    client = containers(rdma.container(src, "client", (*command, "10.78.0.151"), "10.78.0.150"))
    client.run().wait_for_line(RESULT, 90)
    _is_refused(client, server, "no process with the guest library")


def test_a_process_that_shed_the_guest_library_is_refused(
    src: Shell, peer: Shell, containers: Register
) -> None:
    command = endless("ib_send_bw")
    server = containers(rdma.container(peer, "server", command, "10.78.0.151"))
    server.run().wait_for_line("Waiting for client")
    shed = ("env", "-u", "LD_PRELOAD", *command, "10.78.0.151")
    client = containers(rdma.container(src, "client", shed, "10.78.0.150"))
    client.run().wait_for_line(RESULT, 90)
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
    client, server = pair(src, peer, containers, "ib_send_bw")
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
    client, server = pair(src, peer, containers, "ib_send_bw")
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
