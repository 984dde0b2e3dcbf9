"""A transport that loses messages, as a network does when it is asked to."""

from __future__ import annotations

from collections.abc import Collection

from migrrdma_runtime.agent.peers.transport import Transport
from migrrdma_runtime.base.errors import UnreachableError
from migrrdma_runtime.wire.agent_messages import Message


class LossyTransport:
    """Loses what is asked under some names: the request, or the reply to it."""

    def __init__(self, real: Transport, names: Collection[str], *, reply: bool) -> None:
        self._real = real
        self._names = names
        self._reply = reply
        self.lost: list[str] = []

    async def ask(
        self, address: str, name: str, request: Message, timeout: float, agent: str = ""
    ) -> Message:
        """Ask by the real one, unless the message is to be lost."""
        if name not in self._names:
            return await self._real.ask(address, name, request, timeout, agent)
        self.lost.append(name)
        if self._reply:
            await self._real.ask(address, name, request, timeout, agent)
        raise UnreachableError(f"{name} to {address} was lost, by the test")

    async def close(self) -> None:
        """Close the real one."""
        await self._real.close()
