"""Why an agent cannot be reached is learnt from the type of an error, against a real agent's port."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cluster import Cluster

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.agent_config import TLSFiles
from migrrdma_runtime.agent.peers.tls_probe import Obstacle, find_obstacle

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def of_another_authority(directory: Path) -> TLSFiles:
    """Certificate and key as good as any, of an authority that nobody knows."""
    certificates.make_ca(directory / "ca", "another")
    certificates.issue(directory / "ca", "src", ["127.0.0.2"], directory / "tls")
    return TLSFiles(*(directory / "tls" / name for name in ("ca.crt", "agent.crt", "agent.key")))


def test_what_stands_in_the_way_is_told_by_its_kind(play: Play, tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("peer", 4)
        ours, theirs = host.config.tls, of_another_authority(tmp_path / "another")
        kept_out = TLSFiles(ours.ca, theirs.certificate, theirs.key)

        async def probe(tls: TLSFiles, address: str = host.address, port: int = cluster.port) -> Obstacle:
            return (await find_obstacle(address, port, tls, 5))[0]

        assert await probe(ours) is Obstacle.NONE
        assert await probe(theirs) is Obstacle.CERTIFICATE  # we do not know their authority
        assert await probe(kept_out) is Obstacle.CERTIFICATE  # they do not know ours
        assert await probe(ours, "127.0.0.9") is Obstacle.CONNECTION  # nobody listens
        with socket.create_server(("127.0.0.9", 0)) as deaf:
            assert (await find_obstacle("127.0.0.9", deaf.getsockname()[1], ours, 0.2))[
                0
            ] is Obstacle.CONNECTION

    play(scenario)


def test_a_stricter_python_sees_what_grpc_sees(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 wants extensions that RFC 5280 has and gRPC does not ask for."""
    usual = ssl.create_default_context

    def strict(*, cafile: Path) -> ssl.SSLContext:
        context = usual(cafile=cafile)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("peer", 4)
        monkeypatch.setattr(ssl, "create_default_context", strict)
        found = await find_obstacle(host.address, cluster.port, host.config.tls, 5)
        assert found[0] is Obstacle.NONE, found

    play(scenario)
