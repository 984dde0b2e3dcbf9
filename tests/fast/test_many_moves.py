"""The integrity workload across many moves: nothing is lost, repeated, reordered or corrupted, at either end.

Everything is real but the device: runc, CRIU, Docker, the agents with their certificates, TCP connections that move.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import workload
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer

pytestmark = pytest.mark.usefixtures("on_the_nodes")

Register = Callable[[Container], Container]

_GOES_ON = "^ *[0-9]+ s +[1-9][0-9]* ops/s"


_LONG = (pytest.mark.soak, pytest.mark.timeout(7200))


@pytest.mark.parametrize("moves", [20, pytest.param(1000, marks=_LONG)])
def test_nothing_is_lost_when_the_runtime_moves_a_container_on_and_on(
    src: Shell, dst: Shell, peer: Shell, containers: Register, moves: int
) -> None:
    docker_client, server = workload.pair(src, peer)
    containers(server).run()
    command = [word.replace(workload.IN_CONTAINER, "/mnt") for word in docker_client.command]
    client = RuntimeContainer(src, "client", "10.78.0.160", command, [(workload.ON_NODE, "/mnt")])
    for shell in (src, dst):
        client.on(shell).prepare()
    client.run()
    try:
        for turn in range(moves):
            client.wait_for_line(_GOES_ON, after=len(client.lines()))
            client = client.move((dst, src)[turn % 2])
        client.wait_for_line(_GOES_ON, after=len(client.lines()))
        workload.stop(server)
        verdict = workload.verdict(server)
        client.wait_for_line("^integrity: ")
        mine = workload.judge(client.lines())
    finally:
        client.remove()
    for heard in (verdict, mine):
        assert heard.ok, heard.text
        assert heard.operations > moves


@pytest.mark.parametrize("moves", [20, pytest.param(200, marks=_LONG)])
def test_nothing_is_lost_when_docker_moves_a_container_on_and_on(
    src: Shell, dst: Shell, peer: Shell, containers: Register, moves: int
) -> None:
    client, server = workload.pair(src, peer)
    for one in (server, client):
        containers(one).run()
    containers(client.on(dst))
    for turn in range(moves):
        client.wait_for_line(_GOES_ON, after=len(client.lines()))
        client = rdma.move(client, (dst, src)[turn % 2])
    client.wait_for_line(_GOES_ON, after=len(client.lines()))
    workload.stop(server)
    for end in (server, client):
        verdict = workload.verdict(end)
        assert verdict.ok, f"{end.name}: {verdict.text}"
        assert verdict.operations > moves


@pytest.mark.parametrize("options", ["-r -q 6", "-b", "-X -q 6", "-X -b"])
def test_nothing_is_lost_when_either_end_moves(src: Shell, dst: Shell, peer: Shell, options: str) -> None:
    """Also of those that share their receives (-r, -X by XRC), or post sends by ``ibv_wr_*`` (-b)."""
    hosts = src, dst, peer
    made = []
    for end, address in zip(workload.pair(src, peer, *options.split()), (160, 161), strict=True):
        command = [word.replace(workload.IN_CONTAINER, "/mnt") for word in end.command]
        made.append(
            RuntimeContainer(end.shell, end.name, f"10.78.0.{address}", command, [(workload.ON_NODE, "/mnt")])
        )
    for host in hosts:
        for one in made:
            one.on(host).prepare()
    client, server = made
    try:
        server.run()
        client.run()
        for client_goes_to, server_goes_to in ((dst, src), (peer, dst), (src, peer)):
            client.wait_for_line(_GOES_ON, after=len(client.lines()))
            client = client.move(client_goes_to)
            server.wait_for_line(_GOES_ON, after=len(server.lines()))
            server = server.move(server_goes_to)
        client.wait_for_line(_GOES_ON, after=len(client.lines()))
        server.shell.run("migrrdma-runtime", "kill", server.name, "TERM")
        for one in (server, client):
            one.wait_for_line("^integrity: (ok|FAILED)")
            verdict = workload.judge(one.lines())
            assert verdict.ok, f"{one.name}: {verdict.text}"
            assert verdict.operations > 0
    finally:
        for host in hosts:
            for one in made:
                one.on(host).remove()
