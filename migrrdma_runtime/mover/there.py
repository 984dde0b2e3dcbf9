"""The mover of another host, as this one asks it and sends to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from migrrdma_runtime.agent.peers.agent_config import AgentConfig, join
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.base.errors import AgentError, UnreachableError
from migrrdma_runtime.engine.engine import IMAGE_DEADLINE_S
from migrrdma_runtime.mover import streams
from migrrdma_runtime.mover.journey import Journey
from migrrdma_runtime.wire import mover_messages
from migrrdma_runtime.wire.agent_messages import Contact, Message


class There:
    """Whichever mover a journey goes to. Every method raises `AgentError`; `UnreachableError`: it does not answer."""

    def __init__(self, transport: GrpcTransport, config: AgentConfig) -> None:
        self._transport = transport
        self._port = config.mover_port
        self.limit = config.deadlines.peer
        """Seconds for what it knows."""
        self.long = 6 * config.deadlines.peer
        """For what its engine does."""

    async def greet(self, where: str) -> Contact:
        """The mover of a host, by the host's name or address, perhaps with a port; `AgentError`: there is none."""
        host, _, port = where.rpartition(":") if _has_port(where) else (where, "", "")
        address = join(host.strip("[]"), int(port or self._port))
        answer = await self._transport.ask(address, "hello", {"version": mover_messages.VERSION}, self.limit)
        if answer["version"] != mover_messages.VERSION:
            raise AgentError(
                f"the mover at {address} speaks version {answer['version']} and this one {mover_messages.VERSION}: "
                "install the same migrrdma on both hosts"
            )
        return Contact(answer["name"], address)

    async def ask(self, journey: Journey, name: str, request: Message, seconds: float = 0.0) -> Message:
        """Its answer, within so many seconds or the usual time."""
        limit = seconds or self.limit
        return await self._transport.ask(journey.there.address, name, request, limit, journey.there.name)

    async def ask_at(self, there: Contact, name: str, request: Message) -> Message:
        """Likewise, where there is no journey."""
        return await self._transport.ask(there.address, name, request, self.limit, there.name)

    async def send(
        self,
        journey: Journey,
        name: str,
        header: Message,
        what: str,
        chunks: AsyncGenerator[bytes, None],
        total: int = 0,
    ) -> None:
        """Send a stream to its end, unless no byte of it moves any more."""
        there, counted = journey.there, journey.counted(what, chunks, total)
        # An engine may work on the last of an image for minutes.
        patience = IMAGE_DEADLINE_S if name == "image" else streams.STALL_S
        sending = asyncio.ensure_future(
            self._transport.send(there.address, name, header, counted, self.limit, there.name)
        )
        try:
            while not sending.done():
                before = journey.sent.get(what)
                await asyncio.wait((sending,), timeout=patience)
                if not sending.done() and journey.sent.get(what) == before:
                    raise UnreachableError(
                        f"{there.name} has taken no byte of the {what} for {patience:g} s: is the network cut, "
                        "or a disk there full or hung?"
                    )
            await sending
        finally:
            sending.cancel()
            await asyncio.wait((sending,))


def _has_port(destination: str) -> bool:
    _, colon, port = destination.rpartition(":")
    return bool(colon) and port.isdecimal() and (destination.count(":") == 1 or "]:" in destination)
