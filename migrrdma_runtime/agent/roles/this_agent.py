"""What the three roles share: this host's agent as they see it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.local.guests import Guests
from migrrdma_runtime.agent.peers.agent_config import Settings, host_of, join
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.transport import Client, Handler
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import DrainError, MigrRDMAError, RefusedError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import EXCHANGES, Message

_log = logging.getLogger(__name__)


@dataclass
class Here:
    """The parts of this host's agent, and how it asks others."""

    settings: Settings
    identity: Identity
    address: str
    store: Store
    guests: Guests
    containers: Containers
    devices: Devices
    client: Client
    handlers: dict[str, Handler] = field(default_factory=dict)
    reached: Callable[[str], None] = lambda _: None
    """Told of every step that is about to be made; tests stop the agent there."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def me(self) -> dict[str, str]:
        """How this agent names itself in messages."""
        return {"name": self.identity.name, "address": self.address}

    async def ask(self, address: str, name: str, request: Message, timeout: float | None = None) -> Message:
        """Ask the agent at an address, which may be this one."""
        if address == self.address or self._is_me(address):
            exchange = EXCHANGES[name]
            agent_messages.check(request, exchange.request, name)
            return agent_messages.check(
                await self.handlers[name](self.identity, request), exchange.reply, name
            )
        return await self.client.call(address, name, request, timeout or self.settings.deadlines.peer)

    def lock(self, migration: str) -> asyncio.Lock:
        """Held while a role changes the state of a migration in more than one step."""
        return self._locks[migration]

    def spawn(self, work: Coroutine[Any, Any, None], migration: str = "") -> None:
        """Go on with something when its request has been answered; ``migration``: it decides about one."""
        task = asyncio.get_running_loop().create_task(_logged(work), name=migration)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def decided(self, migration: str) -> None:
        """Wait for what was begun about a migration."""
        await asyncio.gather(*(task for task in self._tasks if task.get_name() == migration))

    async def stop(self) -> None:
        """Leave everything as it is; the store has what it takes to go on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def require_is(self, caller: Identity, agent: dict[str, str]) -> None:
        """Whether the caller is the agent that it says it is, at an address that is its own."""
        if caller.name != agent["name"]:
            raise RefusedError(f"agent {caller.name} cannot speak as {agent['name']}")
        if host_of(agent["address"]) not in caller.addresses | {caller.name}:
            raise RefusedError(
                f"agent {caller.name} gives {agent['address']} as its address, which its certificate lacks"
            )

    def require_speaks_for(self, caller: Identity, gid: str, address: str) -> None:
        """Whether the caller may say something about connections that end at this GID."""
        if not caller.speaks_for(gid) and self.settings.agent_for(gid) != address:
            raise RefusedError(
                f"agent {caller.name} speaks of GID {gids.shown(gid)}, which neither its certificate names "
                "nor [peers] here gives to it"
            )

    def _is_me(self, address: str) -> bool:
        host = host_of(address)
        return host in self.identity.addresses and address == join(host, self.settings.port)


def boot_id() -> str:
    """Which boot of the host it is: processes do not outlive it, records do."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """Do several things at once and wait for all; of several errors, raise the one that explains most.

    None is cancelled because another failed: what is asked of a guest has its deadline and an answer.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    errors = [one for one in results if isinstance(one, BaseException)]
    for error in errors:
        if not isinstance(error, MigrRDMAError):
            raise error
    if errors:
        raise min(errors, key=lambda error: not isinstance(error, DrainError))
    return results


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except MigrRDMAError as error:
        _log.error("%s", error)
    except Exception:  # noqa: BLE001 (whatever it is, nobody else would ever hear of it)
        _log.exception("in the background")
