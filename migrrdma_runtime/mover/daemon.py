"""The mover as a whole: its parts put together, started, and stopped with everything as it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.agent_config import AgentConfig
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.grpc_transport import GrpcServer, GrpcTransport
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.config import Config
from migrrdma_runtime.engine import find
from migrrdma_runtime.engine.engine import Container, Engine
from migrrdma_runtime.mover.agent_here import AgentHere
from migrrdma_runtime.mover.arrival import Arrivals
from migrrdma_runtime.mover.book import Arriving, Book, Departing
from migrrdma_runtime.mover.departure import Departures
from migrrdma_runtime.mover.dump import LowLevel
from migrrdma_runtime.mover.orders import Ask, Orders, begin, follow
from migrrdma_runtime.mover.requests import MOVE, Requests, Say
from migrrdma_runtime.mover.there import There
from migrrdma_runtime.wire import mover_messages
from migrrdma_runtime.wire.agent_messages import Message

_log = logging.getLogger(__name__)

BOOK = "moves.db"
"""In ``state_dir``."""


def _running(container: str, engine: str) -> tuple[Engine, Container]:
    return find.find(container, engine, running=True)


def _engine(name: str) -> Engine:
    return find.by_name(name)


@dataclass(frozen=True)
class ThisHost:
    """How engines and containers of this host are come by; tests have a host of their own."""

    running: Callable[[str, str], tuple[Engine, Container]] = _running
    """A running container by its name, and its engine, which may be named."""
    engine: Callable[[str], Engine] = _engine
    low_level: Callable[[str, str], LowLevel] = LowLevel


class Daemon:
    """One mover."""

    def __init__(self, config: AgentConfig, shared: Config, host: ThisHost | None = None) -> None:
        host = host or ThisHost()
        credentials = certificates.load(config.tls)
        self._config = config
        self._name = credentials.identity.name
        self._addresses = certificates.listening(config.listen, credentials.identity, config.tls)
        agent = AgentHere(str(config.run_dir))
        self._arriving = Book(config.state_dir / BOOK, Arriving)
        self._departing = Book(config.state_dir / BOOK, Departing)
        self._arrivals = Arrivals(
            self._arriving, agent, Path(shared.staged_dir), config.guest_dir, host.engine
        )
        self._transport = GrpcTransport(credentials, mover_messages.MOVERS)
        self._there = There(self._transport, config)
        self._departures = Departures(
            self._departing, agent, self._there, config, self._name, host.running, host.low_level
        )
        self._orders = Orders(self._departures.migrate, self._departures.cancel, MOVE)
        self._ordered: dict[str, tuple[Ask, str]] = {}
        """Moves that are under way from other hosts and were asked for here: whom to ask, and by what name."""
        self._server = GrpcServer(
            credentials,
            {"hello": self._hello, **self._arrivals.handlers, **self._orders.handlers},
            self._arrivals.streams,
            mover_messages.MOVERS,
        )
        self._requests = Requests(
            {
                "migrate": self._migrate,
                "cancel": self._cancel,
                "list": self._list,
                "awaited": self._awaited,
            }
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what the last mover left, then listen."""
        loop = asyncio.get_running_loop()
        # Not waited for: an engine that is down must not keep the others' moves from beginning.
        self._tasks = [loop.create_task(one) for one in (self._recover(), self._arrivals.watch())]
        await self._server.start(self._addresses, self._config.mover_port)
        await self._requests.listen(self._config.run_dir / paths.MOVER_SOCKET)
        _log.info("mover %s listens on %s", self._name, ", ".join(self._addresses))

    async def stop(self) -> None:
        """Stop; what was begun is undone or finished by the next one."""
        for one in self._tasks:
            one.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._arrivals.stop()
        await self._orders.stop()
        await self._requests.close()
        await self._server.stop()
        await self._transport.close()
        self._arriving.close()
        self._departing.close()

    async def _recover(self) -> None:
        # At once: what leaves may wait for another host, and that one for what arrives here.
        for one in await asyncio.gather(
            self._departures.recover(), self._arrivals.recover(), return_exceptions=True
        ):
            if isinstance(one, Exception):
                _log.error("taking up what the last mover left", exc_info=one)

    async def _hello(self, _caller: Identity, _request: Message) -> Message:
        return {"name": self._name, "version": mover_messages.VERSION}

    async def _migrate(self, request: Message, say: Say) -> Message:
        def watch(event: Message) -> None:
            say({"event": event})

        if not request["source"]:
            return await self._departures.migrate(request["move"], watch)
        return await self._migrate_elsewhere(request["source"], request["move"], watch)

    async def _migrate_elsewhere(
        self, source: str, move: Message, watch: Callable[[Message], None]
    ) -> Message:
        there = await self._there.greet(source)
        if there.name == self._name:
            return await self._departures.migrate(move, watch)
        names = set[str]()

        async def ask(name: str, request: Message) -> Message:
            return await self._there.ask_at(there, name, request)

        order = await begin(ask, move)

        def noted(event: Message) -> None:
            if (name := str(event.get("move", ""))) and name not in names:
                names.add(name)
                self._ordered[name] = ask, order
            watch(event)

        try:
            return await follow(ask, order, noted)
        finally:
            for name in names:
                self._ordered.pop(name, None)

    async def _cancel(self, request: Message, _say: Say) -> Message:
        if (ordered := self._ordered.get(request["move"])) is not None:
            ask, order = ordered
            return await ask("withdraw", {"order": order})
        return {"cancelled": self._departures.cancel(request["move"])}

    async def _list(self, _request: Message, _say: Say) -> Message:
        return {"departures": self._departures.moves(), "arrivals": self._arrivals.moves()}

    async def _awaited(self, request: Message, _say: Say) -> Message:
        return {"new_root": await self._arrivals.awaited(request["container"])}
