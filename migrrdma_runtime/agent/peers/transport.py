"""How an agent is asked: over the network (grpc_transport.py), or in this very process.

Tests have a third way, which loses messages (``tests/doubles/lossy_transport.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.base.errors import UnreachableError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import EXCHANGES, Message

Handler = Callable[[Identity, Message], Awaitable[Message]]
"""What answers a request, given who asks."""

Handlers = dict[str, Handler]

StreamHandler = Callable[[Identity, Message, AsyncIterator[bytes]], Awaitable[Message]]
"""What takes a stream: given who sends, its header and its bytes. It is cancelled when the sender has gone."""

StreamHandlers = dict[str, StreamHandler]


class Transport(Protocol):
    """A way to ask agents."""

    async def ask(
        self, address: str, name: str, request: Message, timeout: float, agent: str = ""
    ) -> Message:
        """Ask the agent at ``host:port``, once, and wait for its answer for so many seconds.

        With the name of an agent, none is asked whose certificate carries another one; without, whoever is there and
        has the address in its certificate. Raises what the agent raised, or `UnreachableError`: then whether the
        request was carried out is unknown.
        """

    async def close(self) -> None:
        """Let go of what it holds."""


class InProcess:
    """Asks this very agent: the same checks, and no network."""

    def __init__(self, identity: Identity, handlers: Handlers) -> None:
        self._identity = identity
        self._handlers = handlers

    async def ask(
        self, address: str, name: str, request: Message, _timeout: float, agent: str = ""
    ) -> Message:
        """Have the handler answer."""
        if agent not in ("", self._identity.name):
            raise UnreachableError(
                f"the agent at {address} is not {agent}: it is {self._identity.name}, this one"
            )
        exchange = EXCHANGES[name]
        agent_messages.check(request, exchange.request, name)
        reply = await self._handlers[name](self._identity, request)
        return agent_messages.check(reply, exchange.reply, name)

    async def close(self) -> None:
        """Nothing is held."""


class Routed:
    """Asks this very agent in the process, and every other one by another way."""

    def __init__(self, is_own: Callable[[str], bool], own: Transport, others: Transport) -> None:
        self._is_own = is_own
        self._own = own
        self.others = others

    async def ask(
        self, address: str, name: str, request: Message, timeout: float, agent: str = ""
    ) -> Message:
        """Ask by the way that leads to this address."""
        way = self._own if self._is_own(address) else self.others
        return await way.ask(address, name, request, timeout, agent)

    async def close(self) -> None:
        """Close both ways."""
        await self._own.close()
        await self.others.close()
