"""Streams between hosts: whole or not at all, with the error of whichever end had one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest
from cluster import Cluster
from guest_process import PATIENT_S

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.grpc_transport import GrpcServer, GrpcTransport
from migrrdma_runtime.base.errors import AgentError, RefusedError
from migrrdma_runtime.wire.agent_messages import Message
from migrrdma_runtime.wire.mover_messages import MOVERS

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]
Scenario = Callable[["_Taker", Callable[[AsyncGenerator[bytes, None]], Awaitable[Message]]], Awaitable[None]]

_HEADER = {"move": "0123456789abcdef"}


class _Taker:
    """Takes a stream, and knows what has become of it."""

    def __init__(self) -> None:
        self.taken = 0
        self.most = 1 << 40
        self.ended = asyncio.Event()
        self.was_whole = False
        self.callers: list[str] = []

    async def take(self, caller: Identity, header: Message, chunks: AsyncIterator[bytes]) -> Message:
        assert header == _HEADER
        self.callers.append(caller.name)
        try:
            async for chunk in chunks:
                self.taken += len(chunk)
                if self.taken > self.most:
                    raise RefusedError("the disk is full")
            self.was_whole = True
        finally:
            self.ended.set()
        return {}


@pytest.fixture(name="with_streams")
def _with_streams(play: Play) -> Callable[[Scenario], None]:
    def run(scenario: Scenario) -> None:
        async def script(cluster: Cluster) -> None:
            host = await cluster.host("dst", 3)
            await host.stop()  # its port is the taker's
            credentials = certificates.load(host.config.tls)
            taker = _Taker()
            server = GrpcServer(credentials, {}, {"images": taker.take}, MOVERS)
            address = next(iter(host.config.listen), "127.0.0.3")
            await server.start([address], cluster.port)
            transport = GrpcTransport(credentials, MOVERS)

            async def send(chunks: AsyncGenerator[bytes, None]) -> Message:
                return await transport.send(
                    f"{address}:{cluster.port}", "images", _HEADER, chunks, PATIENT_S, "dst"
                )

            try:
                async with asyncio.timeout(PATIENT_S):
                    await scenario(taker, send)
            finally:
                await transport.close()
                await server.stop()

        play(script)

    return run


async def _chunks(count: int, size: int = 1 << 20) -> AsyncGenerator[bytes, None]:
    for _ in range(count):
        yield bytes(size)


def test_every_byte_arrives_and_the_taker_knows_who_sends(with_streams: Callable[[Scenario], None]) -> None:
    async def scenario(
        taker: _Taker, send: Callable[[AsyncGenerator[bytes, None]], Awaitable[Message]]
    ) -> None:
        assert await send(_chunks(64)) == {}
        assert taker.taken == 64 << 20
        assert taker.was_whole
        assert taker.callers == ["dst"]

    with_streams(scenario)


def test_the_takers_refusal_is_the_senders_error_at_once(with_streams: Callable[[Scenario], None]) -> None:
    async def scenario(
        taker: _Taker, send: Callable[[AsyncGenerator[bytes, None]], Awaitable[Message]]
    ) -> None:
        taker.most = 3 << 20
        with pytest.raises(RefusedError, match="the disk is full"):
            await send(_chunks(10_000))
        assert taker.taken < 100 << 20

    with_streams(scenario)


def test_what_goes_wrong_at_the_sender_is_its_error_and_nothing_whole_there(
    with_streams: Callable[[Scenario], None],
) -> None:
    async def breaks() -> AsyncGenerator[bytes, None]:
        yield bytes(1 << 20)
        raise AgentError("the file has gone")

    async def scenario(
        taker: _Taker, send: Callable[[AsyncGenerator[bytes, None]], Awaitable[Message]]
    ) -> None:
        with pytest.raises(AgentError, match="the file has gone"):
            await send(breaks())
        await taker.ended.wait()
        assert not taker.was_whole

    with_streams(scenario)


def test_a_sender_that_is_stopped_leaves_nothing_whole_there(
    with_streams: Callable[[Scenario], None],
) -> None:
    async def scenario(
        taker: _Taker, send: Callable[[AsyncGenerator[bytes, None]], Awaitable[Message]]
    ) -> None:
        closed = asyncio.Event()

        async def endless() -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield bytes(1 << 16)
                    await asyncio.sleep(0.001)
            finally:
                closed.set()

        sending = asyncio.ensure_future(send(endless()))
        while not taker.taken:
            await asyncio.sleep(0.01)
        sending.cancel()
        await taker.ended.wait()
        assert not taker.was_whole
        await closed.wait()

    with_streams(scenario)
