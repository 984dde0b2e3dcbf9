"""By which GIDs and numbers others may ask for the queue pairs of a process, and what bears that out.

A process says what its application calls its queue pairs. It could say that one is called as somebody else's is, so
that neither of the two is connected to. Its word counts as proven only of the number that the kernel has for a queue
pair of it, and of those that it had before a move or as a partner of one, when the same was true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Context, QueuePair
from migrrdma_runtime.agent.local.resources import Holdings
from migrrdma_runtime.agent.roles.participants import Mover
from migrrdma_runtime.agent.roles.records import PartnerData, PartnerGuest
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.base import gids


@dataclass(frozen=True)
class Evidence:
    """What there is beside the word of a process."""

    guest: Guest
    contexts: Sequence[Context]
    holdings: Holdings | None
    """By the kernel."""
    numbers: set[int]
    """That its queue pairs have had, by this agent's records."""
    is_on_record: bool

    def bears_out(self, pair: QueuePair, number: int) -> bool:
        """Whether it is not only the process's word that its application calls this one so."""
        if number in self.numbers:
            return True
        if pair.pqpn != number:
            return False
        if self.holdings is None:  # there is nothing but its word anyway
            return True
        device = next((one.real_device for one in self.contexts if one.id == pair.name.context), "")
        # The kernel does not say of one whose thread has ended. Who has moved or was a partner may be meant by it.
        return self.is_on_record or self.holdings.is_made_by(self.guest, device, number)


def evidence(
    agent: ThisAgent, guest: Guest, contexts: Sequence[Context], holdings: Holdings | None
) -> Evidence:
    """What there is."""
    names, as_partner = agent.store.names, list(_as_partner(agent, guest))
    numbers = names.numbers_of(guest.container, guest.name)
    numbers |= {pair.qpn for one in as_partner for pair in one.qps}
    is_on_record = bool(as_partner or names.of(guest.container, guest.name))
    return Evidence(guest, contexts, holdings, numbers, is_on_record)


def _as_partner(agent: ThisAgent, guest: Guest) -> Iterator[PartnerGuest]:
    for record in agent.store.all(PartnerData):
        for one in record.data.guests:
            if (one.container, one.process) != (guest.container, guest.name):
                continue
            # Outside of containers another process may have its name.
            if guest.container or agent.containers.is_it(one.process_id, guest.process.pid):
                yield one


@dataclass
class Called:
    """By what others may ask for the queue pairs of processes, by process; nothing where late comers are not wanted."""

    names: dict[str, list[str]] = field(default_factory=dict)
    qpns: dict[str, list[int]] = field(default_factory=dict)
    unproven: dict[str, list[int]] = field(default_factory=dict)


async def called(agent: ThisAgent, movers: list[Mover]) -> Called:
    """Find it out."""
    if not agent.config.late_comers:
        return Called()
    qpns = await _numbers_of(agent, movers)
    return Called(await _names_of(agent, movers), qpns, unproven(movers, qpns))


async def _names_of(agent: ThisAgent, movers: list[Mover]) -> dict[str, list[str]]:
    """The GIDs that others may know these processes by: of their devices, and those that they have come here with."""

    def of_devices() -> dict[str, set[str]]:
        devices = {context.real_device for one in movers for context in one.contexts}
        return {
            device: {
                gids.from_bytes(gids.packed(entry.gid))
                for entry in agent.devices.gid_table(device)
                if not gids.address(entry.gid).is_link_local
            }
            for device in devices
        }

    tables = await asyncio.to_thread(of_devices)
    names = {}
    for one in movers:
        own = set().union(*(tables[context.real_device] for context in one.contexts))
        names[one.guest.name] = sorted(own | agent.store.names.of(one.guest.container, one.guest.name))
    return names


async def _numbers_of(agent: ThisAgent, movers: list[Mover]) -> dict[str, list[int]]:
    """The numbers that these processes' queue pairs have for their applications, where that is proven."""
    holdings, numbers = await agent.resources.holdings(), {}
    for one in movers:
        known = evidence(agent, one.guest, one.contexts, holdings)
        proven = {pair.name.vqpn for pair in one.pairs if known.bears_out(pair, pair.name.vqpn)}
        numbers[one.guest.name] = sorted(proven)
    return numbers


def unproven(movers: list[Mover], proven: dict[str, list[int]]) -> dict[str, list[int]]:
    """The others that they say they have; of processes that have any."""
    found = {
        one.guest.name: sorted({pair.name.vqpn for pair in one.pairs} - set(proven.get(one.guest.name, ())))
        for one in movers
    }
    return {name: numbers for name, numbers in found.items() if numbers}
