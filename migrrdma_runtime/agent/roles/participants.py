"""Who takes part in a migration: found out, and refused by name, before anything is touched."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from migrrdma_runtime.agent.local.containers import Process
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Address, AddressKind, Context, Inventory, QueuePair
from migrrdma_runtime.agent.local.strangers import way_in
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import AgentError, BusyError, GuestError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import Contact, Message

_log = logging.getLogger(__name__)

Connection = tuple[Guest, QueuePair]
"""A connected queue pair and whose it is."""

_MOST_HOSTS = 1 << 12
"""To ask one takes a connection; an address takes a process no more than to say it."""

_NAMED = 4
"""Of how many processes without the guest library it is looked at how they come by a device."""


@dataclass
class Mover:
    """A process that is to be moved, and what it holds."""

    guest: Guest
    inventory: Inventory
    contexts: list[Context]
    pairs: list[QueuePair]
    addresses: list[Address]

    @property
    def own_addresses(self) -> list[Address]:
        """From where its datagrams come."""
        return [one for one in self.addresses if one.kind is AddressKind.OWN]

    @cached_property
    def datagrams(self) -> list[Message]:
        """Its queue pairs for datagrams, once for each GID that they are known by; few (`require_few_datagrams`)."""
        pairs: dict[int, list[QueuePair]] = {}
        for pair in self.pairs:
            if pair.takes_datagrams:
                pairs.setdefault(pair.name.context, []).append(pair)
        return [
            {
                "process": self.guest.name,
                "context": one.context,
                "port": one.port,
                "index": one.index,
                "vgid": one.vgid,
                "vqpn": pair.name.vqpn,
                "gid": one.gid,
                "qpn": pair.pqpn,
            }
            for one in self.own_addresses
            for pair in pairs.get(one.context, ())
        ]


@dataclass
class PartnerAgent:
    """The agent of a host with other ends, and these connections as the source sees them."""

    contact: Contact
    connections: list[Connection]


@dataclass
class Participants:
    """Everybody: the processes that move, the agents of the other ends, and what stays within the container."""

    movers: list[Mover]
    partners: list[PartnerAgent]
    internal: list[Connection]

    @property
    def datagrams(self) -> list[Message]:
        """The queue pairs for datagrams that move."""
        return [one for mover in self.movers for one in mover.datagrams]


async def find_movers(agent: ThisAgent, container: str) -> list[Mover]:
    """The processes of the container in which the guest library is at work, also those with no device open.

    Each has a connection to this agent, with which CRIU could not dump it.

    Raises `GuestError`, with every reason, for what cannot be moved, and `BusyError` while the container takes part
    in another migration.
    """
    # First: the processes of one that does may have no connection at the moment.
    require_container_free(agent, container)
    holders = await agent.containers.holders(container)
    await agent.guests.have_pids({one.pid for one in holders})
    guests = agent.guests.of_container(container)
    await _require_guests(agent, container, holders, guests)
    require_container_free(agent, container)
    movers: list[Mover] = await wait_for_all(*(look_into(agent, guest) for guest in guests))
    require_movable(container, movers)
    await require_own(agent, movers)
    require_devices(agent, movers)
    await require_own_gids(agent, movers)
    await require_memory(agent, movers)
    return movers


async def _require_guests(
    agent: ThisAgent, container: str, holders: list[Process], guests: list[Guest]
) -> None:
    """Refuse a process with an open device that nobody could move, and that is no mere child of one that can be."""
    known = {guest.process.pid for guest in guests}
    unknown = [one for one in holders if one.pid not in known]
    strangers = []
    for one in unknown:
        # Each may have a million open files: not in the loop, which others wait for.
        look = agent.containers.only_inherits
        if not await agent.containers.looks.at(container, look, one.pid, known):
            strangers.append(one)
    if strangers:
        look_at, libraries = agent.containers.looks.at, agent.containers.verbs_libraries
        ways = [await look_at(container, libraries, one.pid) for one in strangers[:_NAMED]]
        how = "; ".join(dict.fromkeys(way_in(way) for way in ways))
        raise GuestError(
            f"{', '.join(str(one) for one in strangers)} of container {container:.12} has an RDMA device "
            f"open without the guest library (or its agent's connection), {how}: start the container with "
            "--runtime=migrrdma, and the program dynamically linked"
        )


async def require_no_others(agent: ThisAgent, container: str, movers: list[Mover]) -> None:
    """Refuse a container in which a process has begun with RDMA since the movers were found.

    It is not parked, and CRIU does not dump it with its connection to us.
    """
    # First: who begins after this look is among the guests by the time that they are looked at.
    holders = await agent.containers.holders(container)
    guests = [one.guest for one in movers]
    late = [one for one in agent.guests.of_container(container) if one not in guests]
    if late:
        raise GuestError(
            f"{', '.join(str(one) for one in late)} opened an RDMA device while the container was quiesced: try again"
        )
    await _require_guests(agent, container, holders, guests)


async def require_memory(agent: ThisAgent, movers: list[Mover]) -> None:
    """Refuse memory regions whose memory the process has protected: no host could register them again.

    A process may do that at any time, until it is frozen; what it protects after this is found by the restore.
    """
    for one in movers:
        if not one.inventory.counts.get("mrs"):
            continue
        # A process may have as many mappings as it likes: not in the loop, which others wait for.
        looks, look = agent.containers.looks, agent.containers.memory_map
        mapped = await looks.at(one.guest.container, look, one.guest.process.pid)
        if mapped is None:
            continue
        regions = await one.guest.memory_regions(agent.config.deadlines.guest)
        forbidden = [str(region) for region in regions if mapped.forbids(region)]
        if forbidden:
            raise GuestError(
                f"{one.guest} has registered memory that it has protected since: {', '.join(forbidden[:8])}"
                f"{f' and {len(forbidden) - 8} more' if len(forbidden) > 8 else ''}. No device could register it "
                "again: the program must deregister a memory region before it protects its memory"
            )


async def require_own(agent: ThisAgent, movers: list[Mover]) -> None:
    """Refuse queue pairs that are another process's: their partners would be quiesced, and connected to this one."""
    holdings = await agent.resources.holdings() if any(one.pairs for one in movers) else None
    if holdings is None:
        return
    for one in movers:
        for pair in one.pairs:
            if objection := holdings.objection(one.guest, one.contexts, pair):
                raise GuestError(objection)


def require_devices(agent: ThisAgent, movers: list[Mover]) -> None:
    """Refuse a device that this host has not: its name, which is a part of paths, is the process's word."""
    known = set(agent.devices.names())
    for one in movers:
        for context in one.contexts:
            if context.real_device not in known:
                raise GuestError(
                    f"{one.guest} lists a device {context.real_device}, which is not one of this host's "
                    f"({', '.join(sorted(known)) or 'there is none'})"
                )


async def require_own_gids(agent: ThisAgent, movers: list[Mover]) -> None:
    """Refuse GIDs that are not those of the device: what others send to one of them would be sent to this process.

    Numbers of queue pairs are a device's own. Of the same number there may be one of a stranger on the next device.
    """
    tables: dict[str, set[str]] = {}
    for one in movers:
        devices = {context.id: context.real_device for context in one.contexts}
        for address in one.own_addresses:
            device = devices.get(address.context, "")
            if device and device not in tables:
                # A thousand small files, not in the event loop.
                table = await asyncio.to_thread(agent.devices.gid_table, device)
                tables[device] = {gids.from_bytes(gids.packed(entry.gid)) for entry in table}
            if address.gid not in tables.get(device, ()):
                raise GuestError(
                    f"{one.guest} lists datagrams of {device or 'no device'} at GID {gids.shown(address.gid)}, "
                    "which is not that device's"
                )


def require_few_datagrams(movers: list[Mover]) -> None:
    """Refuse more than can be moved; only counted, as a process may list more than anybody has memory for."""
    count = 0
    for one in movers:
        pairs = Counter(pair.name.context for pair in one.pairs if pair.takes_datagrams)
        count += sum(pairs[address.context] for address in one.own_addresses)
    if count > agent_messages.MOST_PLACES:
        raise GuestError(
            f"{len(movers)} processes have more queue pairs for datagrams, once for each GID that they send from, than "
            f"the {agent_messages.MOST_PLACES} that can be moved"
        )


def require_none_is_being_connected(
    agent: ThisAgent, movers: list[Mover], names: dict[str, list[str]]
) -> None:
    """Wait with a move until what others are about to be connected to is connected to them: `BusyError`."""
    for one in movers:
        for pair in one.pairs:
            known = names.get(one.guest.name, [])
            if (
                pair.may_be_connected
                and agent.asked_for.is_being_connected(known, pair.name.vqpn)
                and agent.asked_for.has_patience(one.guest.container)
            ):
                raise BusyError(
                    f"{one.guest} is just being connected to, at QP 0x{pair.name.vqpn:x}: try again"
                )


def require_movable(container: str, movers: list[Mover]) -> None:
    """Refuse what cannot be moved: every process with all of its reasons, in the one line that an engine shows."""
    refused = [
        f"{one.guest.process}: {', '.join(one.inventory.reasons)}" for one in movers if one.inventory.reasons
    ]
    if refused:
        raise GuestError(f"container {container:.12} cannot be migrated: {'; '.join(refused)}")


async def look_into(agent: ThisAgent, guest: Guest) -> Mover:
    """Ask a process for everything that it holds."""
    limit = agent.config.deadlines.guest
    return Mover(
        guest,
        await guest.inventory(limit),
        await guest.contexts(limit),
        await guest.queue_pairs(limit),
        await guest.addresses(limit),
    )


def require_container_free(agent: ThisAgent, container: str) -> None:
    """Refuse a container that takes part in another migration, or has not yet gone on after one."""
    for record in agent.store.every():
        # What was decided of it is told again until it is heard: in the middle of a later migration it would end that.
        untold = any(record.data.whereabouts(name)[0] == container for name in record.data.pending)
        if (record.is_busy and record.data.concerns(container)) or untold:
            raise BusyError(
                f"container {container:.12} takes part in migration {record.id} ({record.role.value}, "
                f"{record.state.value}): try again when that has ended"
            )


async def find_participants(agent: ThisAgent, movers: list[Mover]) -> Participants:
    """Who is at the other ends; their agents must be reachable, and speak as this one does."""
    connections = [(one.guest, pair) for one in movers for pair in one.pairs if pair.is_connected]
    failed = [(one.guest, pair) for one in movers for pair in one.pairs if pair.has_failed]
    ends = {pair.end for _, pair in (*connections, *failed)}
    # Also those of which one end has failed: the other one is to find it so.
    internal = [one for one in (*connections, *failed) if one[1].other_end in ends]
    by_address: dict[str, list[Connection]] = {}
    for one in connections:
        if one[1].other_end not in ends:
            by_address.setdefault(agent.config.agent_for(one[1].dgid), []).append(one)

    by_address |= {address: [] for address in _peers(agent, movers, AddressKind.PEER) - by_address.keys()}
    require_few_datagrams(movers)
    if len(by_address) > _MOST_HOSTS:
        raise GuestError(
            f"{len(by_address)} hosts are sent to; {_MOST_HOSTS} are the most of which a move can be told"
        )
    found: list[Contact] = await wait_for_all(*(agent.greet(address) for address in by_address))
    partners: dict[str, PartnerAgent] = {}
    former = await _who_answers(agent, _peers(agent, movers, AddressKind.FORMER) - by_address.keys())
    for contact, ones in [*zip(found, by_address.values(), strict=True), *((one, []) for one in former)]:
        # A host with several addresses is one partner.
        partners.setdefault(contact.name, PartnerAgent(contact, [])).connections.extend(ones)
    return Participants(movers, list(partners.values()), internal)


def _peers(agent: ThisAgent, movers: list[Mover], kind: AddressKind) -> set[str]:
    """The agents of whom the movers send datagrams to; of one's own processes it is this one."""
    found = set()
    for one in movers:
        for address in one.addresses:
            if address.kind is AddressKind.BLIND:
                raise GuestError(
                    f"{one.guest} takes datagrams in a way that a move would show: into memory whose addresses are not "
                    "the process's own, as of ibv_reg_mr_iova or device memory"
                )
            if address.kind is kind:
                with (
                    contextlib.nullcontext() if kind is AddressKind.PEER else contextlib.suppress(AgentError)
                ):
                    found.add(agent.config.agent_for(address.gid))
    return found


async def _who_answers(agent: ThisAgent, addresses: set[str]) -> list[Contact]:
    """Whoever was talked to before may be gone, and nobody is the worse for it."""
    if len(addresses) > _MOST_HOSTS:
        _log.info(
            "not told of a move: %d of the hosts to which datagrams were sent", len(addresses) - _MOST_HOSTS
        )
    asked = sorted(addresses)[:_MOST_HOSTS]
    answers = await asyncio.gather(*(agent.greet(one) for one in asked), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, AgentError):
            raise answer
        if isinstance(answer, AgentError):
            _log.info("not told of a move, to whose host datagrams were sent before: %s", answer)
    return [one for one in answers if isinstance(one, Contact)]
