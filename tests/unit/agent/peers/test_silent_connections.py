"""Whoever reaches the agents' port and says nothing: it has no certificate, and keeps nothing of the agent's."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Awaitable, Callable

import grpc
import pytest
from cluster import Cluster
from guest_process import PATIENT_S

from migrrdma_runtime.agent.peers import certificates, grpc_transport
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.base.errors import UnreachableError
from migrrdma_runtime.wire import agent_messages

GRPC = tuple(int(one) for one in grpc.__version__.split(".")[:2])
HELLO = {"version": agent_messages.VERSION}
Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def end_of(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionResetError):
        assert not await reader.read()


def test_a_connection_on_which_nobody_shows_a_certificate_is_closed(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the library's own limit it was kept for two minutes."""
    monkeypatch.setattr(grpc_transport, "_HANDSHAKE_S", 0.2)

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("src", 2)
        reader, writer = await asyncio.open_connection(host.address, cluster.port)
        async with asyncio.timeout(PATIENT_S / 2):
            await end_of(reader)
        writer.close()

    play(scenario)


# Nothing of ours to test there: an older library, as Debian 12 has it, ignores the argument (docs/security.md says so).
@pytest.mark.skipif(GRPC < (1, 60), reason="the library has no such limit: the handshake's is all there is")
def test_connections_without_a_certificate_leave_descriptors_for_guests(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 3
    monkeypatch.setattr(grpc_transport, "_MOST_CONNECTIONS", most)
    monkeypatch.setattr(grpc_transport, "_HANDSHAKE_S", 10 * PATIENT_S)  # none is closed for that

    async def scenario(cluster: Cluster) -> None:
        host, other = await cluster.host("src", 2), await cluster.host("dst", 3)
        silent = [await asyncio.open_connection(host.address, cluster.port) for _ in range(4 * most)]
        ends = [asyncio.ensure_future(end_of(reader)) for reader, _ in silent]
        closed = 0
        async with asyncio.timeout(PATIENT_S):
            while closed < len(silent) - most:
                await asyncio.wait([one for one in ends if not one.done()], return_when="FIRST_COMPLETED")
                closed = sum(one.done() for one in ends)
        for _, writer in silent:
            writer.close()  # there is room again
        await asyncio.gather(*ends)
        client = GrpcTransport(certificates.load(other.config.tls))
        try:
            async with asyncio.timeout(PATIENT_S):
                while True:
                    try:
                        await client.ask(host.agent.contact.address, "hello", HELLO, PATIENT_S)
                        break
                    except UnreachableError:  # the server notices in its own time
                        await asyncio.sleep(0.05)
        finally:
            await client.close()

    play(scenario)


def test_no_address_gets_more_than_a_part_of_the_descriptors() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limit == resource.RLIM_INFINITY or grpc_transport._most_connections() <= limit / 8
