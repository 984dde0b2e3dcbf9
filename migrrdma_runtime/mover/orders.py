"""Moves that are asked for at another host: ``migrrdma migrate CONTAINER DEST --from HOST``.

The mover there moves the container as if it had been asked on its own host, and goes on when whoever asked has gone.
What happens to the move it keeps until that asks for it, which it does again and again (``follow``).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.transport import Handlers
from migrrdma_runtime.base.errors import MigrRDMAError, RefusedError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import Message
from migrrdma_runtime.wire.mover_messages import MOST_EVENTS
from migrrdma_runtime.wire.service_line import error_of

_MOST_ORDERS = 256
_KEPT = 4096
"""Events that nobody has asked for yet; of more the oldest are forgotten."""
_FORGOTTEN_S = 600.0
"""After its end."""
_WAIT_S = 5.0

Migrate = Callable[[Message, Callable[[Message], None]], Awaitable[Message]]
Ask = Callable[[str, Message], Awaitable[Message]]
"""Asks the mover of the host in question: the exchange's name, and what is said in it."""


@dataclass
class _Order:
    caller: str
    events: list[Message] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    move: str = ""
    end: Message = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    def note(self, event: Message) -> None:
        """Something has happened."""
        self.move = event.get("move", self.move)
        self.events.append(event)
        del self.events[:-_KEPT]
        self.news.set()


class Orders:
    """What others have asked this host's mover to do."""

    def __init__(self, migrate: Migrate, cancel: Callable[[str], bool], schema: Message) -> None:
        """``schema``: what a request for a move is."""
        self._migrate = migrate
        self._cancel = cancel
        self._schema = schema
        self._orders: dict[str, _Order] = {}
        self.handlers: Handlers = {"order": self.order, "follow": self.follow, "withdraw": self.withdraw}

    async def order(self, caller: Identity, request: Message) -> Message:
        """Begin to move a container; the answer is by what name to follow that."""
        options = agent_messages.check(request["options"], self._schema, "order of a move")
        if len(self._orders) >= _MOST_ORDERS:
            raise RefusedError(
                f"{_MOST_ORDERS} moves have been asked for from other hosts: wait for some to end"
            )
        name, order = secrets.token_hex(8), _Order(caller.name)
        self._orders[name] = order
        order.task = asyncio.get_running_loop().create_task(self._carry_out(name, order, options))
        return {"order": name}

    async def follow(self, caller: Identity, request: Message) -> Message:
        """What has happened since the last time, or has by the end of the asker's patience."""
        order = self._of(caller, request)
        if not order.events and not order.end:
            with suppress(TimeoutError):
                await asyncio.wait_for(order.news.wait(), min(request["wait"], _WAIT_S))
        order.news.clear()
        events, order.events = order.events[:MOST_EVENTS], order.events[MOST_EVENTS:]
        return {"events": events, "end": {} if order.events else order.end}

    async def withdraw(self, caller: Identity, request: Message) -> Message:
        """Undo it, if it is not too late."""
        return {"cancelled": self._cancel(self._of(caller, request).move)}

    async def stop(self) -> None:
        """Leave what is under way as it is, for the next mover to undo."""
        tasks = [one.task for one in self._orders.values() if one.task is not None]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, name: str, order: _Order, options: Message) -> None:
        try:
            order.end = {"done": await self._migrate(options, order.note)}
        except MigrRDMAError as error:
            order.end = {"error": {"kind": type(error).__name__, "message": str(error)[:4096]}}
        order.news.set()
        asyncio.get_running_loop().call_later(_FORGOTTEN_S, self._orders.pop, name, None)

    def _of(self, caller: Identity, request: Message) -> _Order:
        order = self._orders.get(request["order"])
        if order is None or order.caller != caller.name:
            raise RefusedError(f"no move was asked for from {caller.name} by the name {request['order']}")
        return order


async def begin(ask: Ask, options: Message) -> str:
    """Have the mover of another host move a container; by what name to follow that."""
    return str((await ask("order", {"options": options}))["order"])


async def follow(ask: Ask, order: str, say: Callable[[Message], None]) -> Message:
    """Say what happens, to the end of it; that, or its error."""
    while True:
        told = await ask("follow", {"order": order, "wait": _WAIT_S})
        for event in told["events"]:
            say(event)
        if "error" in told["end"]:
            raise error_of(told["end"]["error"])
        if "done" in told["end"]:
            done: Message = told["end"]["done"]
            return done
