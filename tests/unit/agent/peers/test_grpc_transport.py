"""Connections between agents whose hosts crash: the kernel says nothing to the other end, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster
from guest_process import PATIENT_S

from migrrdma_runtime.agent.peers import certificates, grpc_transport
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.base import kernel_file
from migrrdma_runtime.base.errors import UnreachableError
from migrrdma_runtime.wire import agent_messages

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

HELLO = {"version": agent_messages.VERSION}

_ROUND_TRIP_S = 0.05


class CrashingHost:
    """Stands before an agent's port; what it holds when the host crashes is forgotten, as by its kernel."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._callers: list[socket.socket] = []
        self._agents: list[socket.socket] = []
        self._passing: list[asyncio.Task[None]] = []
        self._forgotten: list[socket.socket] = []
        self._resets: list[asyncio.Task[None]] = []
        self._listener = socket.create_server(("127.0.0.4", 0))
        self._listener.setblocking(False)
        self.address = f"127.0.0.4:{self._listener.getsockname()[1]}"
        self._accepting = asyncio.ensure_future(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            caller, _ = await loop.sock_accept(self._listener)
            agent = socket.socket()
            agent.setblocking(False)
            self._callers.append(caller)
            self._agents.append(agent)
            await loop.sock_connect(agent, ("127.0.0.4", self._port))
            for source, sink in ((caller, agent), (agent, caller)):
                self._passing.append(asyncio.ensure_future(self._pass_on(source, sink)))

    @staticmethod
    async def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, 65536):
                await loop.sock_sendall(sink, data)
            sink.shutdown(socket.SHUT_WR)

    async def crash(self) -> int:
        """Forget every connection, and say how many; a later segment of one is answered with a reset."""
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        self._passing.clear()
        for agent in self._agents:
            agent.close()
        self._agents.clear()
        lost, self._callers = self._callers, []
        self._forgotten += lost
        self._resets += [asyncio.ensure_future(self._reset(caller)) for caller in lost]
        return len(lost)

    @staticmethod
    async def _reset(caller: socket.socket) -> None:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.get_running_loop().sock_recv(caller, 1)
        await asyncio.sleep(_ROUND_TRIP_S)  # the request has left the caller's kernel by then
        caller.close()

    async def close(self) -> None:
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        await self.crash()
        for task in self._resets:
            task.cancel()
        await asyncio.gather(*self._resets, return_exceptions=True)
        for caller in self._forgotten:
            caller.close()
        self._listener.close()


async def through_a_crash(cluster: Cluster, seconds_until_back: float) -> None:
    """Ask an agent, have its host crash and come back, and ask again."""
    peer = await cluster.host("peer", 4)
    host = CrashingHost(cluster.port)
    client = GrpcTransport(certificates.load(peer.config.tls))
    try:
        assert (await client.ask(host.address, "hello", HELLO, PATIENT_S))[
            "version"
        ] == agent_messages.VERSION
        assert await host.crash() == 1
        await asyncio.sleep(seconds_until_back)  # what passes here is the subject
        assert (await client.ask(host.address, "hello", HELLO, PATIENT_S))[
            "version"
        ] == agent_messages.VERSION
    finally:
        await client.close()
        await host.close()


def test_a_partner_whose_host_has_crashed_and_is_back_is_reached_at_once(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_transport, "_IDLE_S", 0.2)

    async def scenario(cluster: Cluster) -> None:
        await through_a_crash(cluster, 0.5)

    play(scenario)


def test_a_connection_that_nobody_uses_is_closed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent would else have one for each other that it has ever asked, and they one each."""
    monkeypatch.setattr(grpc_transport, "_IDLE_S", 1e6)

    async def scenario(cluster: Cluster) -> None:
        peer = await cluster.host("peer", 4)
        client = GrpcTransport(certificates.load(peer.config.tls))
        address = f"{peer.address}:{cluster.port}"
        try:
            await client.ask(address, "hello", HELLO, PATIENT_S)
            assert _connections(cluster.port) == 1
            monkeypatch.setattr(grpc_transport, "_IDLE_S", 0.05)
            await client.ask(address, "hello", HELLO, PATIENT_S)
            async with asyncio.timeout(PATIENT_S):
                while _connections(cluster.port):
                    await asyncio.sleep(0.02)  # nothing tells of it
            # And it is no obstacle to the next request.
            await client.ask(address, "hello", HELLO, PATIENT_S)
        finally:
            await client.close()

    play(scenario)


def _connections(port: int) -> int:
    """Of this host to that port, by the kernel's word; gRPC's are IPv6 sockets, whatever they lead to."""
    lines = [line.split() for kind in ("tcp", "tcp6") for line in kernel_file.lines(f"/proc/self/net/{kind}")]
    established = "01"
    return sum(line[3] == established and line[2].endswith(f":{port:04X}") for line in lines)


def test_an_agent_that_is_back_is_reached_at_once(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        peer = cluster.prepare("peer", 4)
        client = GrpcTransport(certificates.load(peer.config.tls))
        address = f"{peer.address}:{cluster.port}"
        try:
            for _ in range(4):  # the library tries anew less and less often
                with pytest.raises(UnreachableError, match="is migrrdma-agent running there"):
                    await client.ask(address, "hello", HELLO, PATIENT_S)
            await peer.start()
            assert (await client.ask(address, "hello", HELLO, PATIENT_S))["version"] == agent_messages.VERSION
        finally:
            await client.close()

    play(scenario)
