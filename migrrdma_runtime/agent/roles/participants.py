"""Who takes part in a migration: found out, and refused by name, before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Context, Inventory, QueuePair
from migrrdma_runtime.agent.roles.records import SourceData
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.base.errors import AgentError, BusyError, GuestError
from migrrdma_runtime.wire import agent_messages

Connection = tuple[Guest, QueuePair]
"""A connected queue pair and whose it is."""


@dataclass
class Mover:
    """A process that is to be moved, and what it holds."""

    guest: Guest
    inventory: Inventory
    contexts: list[Context]
    pairs: list[QueuePair]


@dataclass
class PartnerAgent:
    """The agent of a host with other ends, and these connections as the source sees them."""

    name: str
    address: str
    connections: list[Connection]


@dataclass
class Participants:
    """Everybody: the processes that move, the agents of the other ends, and what stays within the container."""

    movers: list[Mover]
    partners: list[PartnerAgent]
    internal: list[Connection]


async def find_movers(agent: ThisAgent, container: str) -> list[Mover]:
    """The processes of the container in which the guest library is at work, also those with no device open.

    Each has a connection to this agent, with which CRIU could not dump it.

    Raises `GuestError`, with every reason, for what cannot be moved, and `BusyError` while the container takes part
    in another migration.
    """
    # First: the processes of one that does may have no connection at the moment.
    require_container_free(agent, container)
    holders = agent.containers.holders(container)
    await agent.guests.have_pids({one.pid for one in holders})
    guests = agent.guests.of_container(container)
    known = {guest.process.pid for guest in guests}
    strangers = [one for one in holders if one.pid not in known]
    if strangers:
        raise GuestError(
            f"{', '.join(str(one) for one in strangers)} of container {container:.12} has an RDMA device "
            "open without the guest library (or its agent's connection): start the container with "
            "--runtime=migrrdma, and the program dynamically linked"
        )
    require_container_free(agent, container)
    movers: list[Mover] = await wait_for_all(*(look_into(agent, guest) for guest in guests))
    require_movable(container, movers)
    return movers


def require_movable(container: str, movers: list[Mover]) -> None:
    """Refuse what cannot be moved, with every reason."""
    reasons = [f"{one.guest}: {reason}" for one in movers for reason in one.inventory.reasons]
    if reasons:
        raise GuestError(f"container {container:.12} cannot be migrated: {'; '.join(reasons)}")


async def look_into(agent: ThisAgent, guest: Guest) -> Mover:
    """Ask a process for everything that it holds."""
    limit = agent.config.deadlines.guest
    return Mover(
        guest,
        await guest.inventory(limit),
        await guest.contexts(limit),
        await guest.queue_pairs(limit),
    )


def require_container_free(agent: ThisAgent, container: str) -> None:
    """Refuse a container that takes part in another migration, or has not yet gone on after one."""
    for record in agent.store.every():
        waits = isinstance(record.data, SourceData) and record.state is State.UNDONE and record.data.pending
        if (record.is_busy or waits) and record.data.concerns(container):
            raise BusyError(
                f"container {container:.12} takes part in migration {record.id} ({record.role.value}, "
                f"{record.state.value}): try again when that has ended"
            )


async def find_participants(agent: ThisAgent, movers: list[Mover]) -> Participants:
    """Who is at the other ends; their agents must be reachable, and speak as this one does."""
    connections = [(one.guest, pair) for one in movers for pair in one.pairs if pair.is_connected]
    ends = {pair.end for _, pair in connections}
    internal = [one for one in connections if one[1].other_end in ends]
    by_address: dict[str, list[Connection]] = {}
    for one in connections:
        if one[1].other_end not in ends:
            by_address.setdefault(agent.config.agent_for(one[1].dgid), []).append(one)

    async def greet(address: str) -> str:
        answer = await agent.ask(address, "hello", {"version": agent_messages.VERSION})
        if answer["version"] != agent_messages.VERSION:
            raise AgentError(
                f"the agent at {address} speaks version {answer['version']} and this one "
                f"{agent_messages.VERSION}: install the same migrrdma on both hosts"
            )
        return str(answer["name"])

    names = await wait_for_all(*(greet(address) for address in by_address))
    partners: dict[str, PartnerAgent] = {}
    for name, (address, ones) in zip(names, by_address.items(), strict=True):
        # A host with several addresses is one partner.
        partners.setdefault(name, PartnerAgent(name, address, [])).connections.extend(ones)
    return Participants(movers, list(partners.values()), internal)
