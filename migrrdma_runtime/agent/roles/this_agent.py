"""What the three roles share: this host's agent as they see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.local.guests import Guests
from migrrdma_runtime.agent.local.resources import Resources
from migrrdma_runtime.agent.peers.agent_config import AgentConfig, host_of
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.transport import Handlers, Transport
from migrrdma_runtime.agent.roles.asked_for import AskedFor
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.agent.roles.tasks import Tasks
from migrrdma_runtime.base import fault_points, gids
from migrrdma_runtime.base.errors import AgentError, DrainError, MigrRDMAError, RefusedError, UnreachableError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import Contact, Message


@dataclass
class ThisAgent:
    """The parts of this host's agent, and how it asks others."""

    config: AgentConfig
    identity: Identity
    contact: Contact
    """How this agent names itself in messages."""
    store: Store
    guests: Guests
    containers: Containers
    devices: Devices
    resources: Resources
    transport: Transport
    handlers: Handlers
    """Of the requests of other agents, by name; each role adds its own."""
    fault_point: Callable[[str], None] = lambda _: None
    """Told of every step that is about to be made; tests stop the agent there."""
    tasks: Tasks = field(default_factory=Tasks)
    asked_for: AskedFor = field(default_factory=lambda: AskedFor(boot_clock))
    """Queue pairs that others are about to be connected to."""
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """Those that somebody holds or waits for: others name migrations as they like."""

    async def ask(self, agent: Contact, name: str, request: Message, timeout: float | None = None) -> Message:
        """Ask an agent, which may be this one; nobody who has another's certificate is asked in its place."""
        limit = timeout or self.config.deadlines.peer
        with fault_points.around(fault_points.Action(f"ask.{name}"), UnreachableError):
            return await self.transport.ask(agent.address, name, request, limit, agent.name)

    async def greet(self, address: str) -> Contact:
        """Learn which agent is at an address: the name that it says it has, if its certificate carries it.

        Raises `AgentError` if it speaks another version.
        """
        limit, request = self.config.deadlines.peer, {"version": agent_messages.VERSION}
        answer = await self.transport.ask(address, "hello", request, limit)
        if answer["version"] != agent_messages.VERSION:
            raise AgentError(
                f"the agent at {address} speaks version {answer['version']} and this one "
                f"{agent_messages.VERSION}: install the same migrrdma on both hosts"
            )
        there = Contact(answer["name"], address)
        await self.ask(there, "hello", request)
        return there

    def lock(self, migration: str) -> asyncio.Lock:
        """Held while a role changes the state of a migration in more than one step."""
        held = self._locks.get(migration)
        if held is None:
            held = self._locks[migration] = asyncio.Lock()
        return held

    def require_is(self, caller: Identity, agent: Contact) -> None:
        """Whether the caller is the agent that it says it is, at an address that is its own."""
        if caller.name != agent.name:
            raise RefusedError(f"agent {caller.name} cannot speak as {agent.name}")
        if host_of(agent.address) not in caller.addresses | {caller.name}:
            raise RefusedError(
                f"agent {caller.name} gives {agent.address} as its address, which its certificate lacks"
            )

    def require_speaks_for(self, caller: Identity, gid: str, address: str) -> None:
        """Whether the caller may say something about connections that end at this GID."""
        if not caller.speaks_for(gid) and self.config.agent_for(gid) != address:
            raise RefusedError(
                f"agent {caller.name} speaks of GID {gids.shown(gid)}, which neither its certificate names "
                "nor [peers] here gives to it"
            )


def boot_clock() -> float:
    """Seconds since this boot, those that the host slept included: what every wait of a role is counted in.

    The wall clock jumps, and the monotonic clock stands while a host sleeps, during which others' deadlines pass.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def wait_for_all(*work: Coroutine[Any, Any, Any]) -> list[Any]:
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
