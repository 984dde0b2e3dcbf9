"""The processes of a partner's host: whose a queue pair is, and how they are given new ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import AddressKind, Connect, QPName, QueuePair
from migrrdma_runtime.agent.roles.records import AnyRecord, PartnerData, PartnerGuest, PartnerQP, SourceData
from migrrdma_runtime.agent.roles.states import Role, State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import BusyError, GuestError, MessageError
from migrrdma_runtime.wire import remote_keys
from migrrdma_runtime.wire.agent_messages import Message

_log = logging.getLogger(__name__)

End = tuple[str, int]
"""GID and QPN, as the network knows them."""


async def find_owners(agent: ThisAgent, connections: list[Message]) -> list[tuple[Guest, list[QueuePair]]]:
    """Whose queue pairs these are: each must belong to exactly one process with the guest library."""
    found: dict[tuple[End, End], list[tuple[Guest, QueuePair]]] = {}
    for guest, pairs in await _claims(agent, {one["qpn"] for one in connections}):
        for pair in pairs:
            # One that has failed is whose it was: the end that moves need not know yet, and learns it as a lost one.
            if pair.is_connected or pair.has_failed:
                found.setdefault((pair.end, pair.other_end), []).append((guest, pair))
    owners: dict[Guest, list[QueuePair]] = {}
    for one in connections:
        end, other = (one["gid"], one["qpn"]), (one["peer_gid"], one["peer_qpn"])
        candidates = found.get((end, other), [])
        if len(candidates) != 1:
            raise GuestError(_explain_owner(agent.identity.name, end, other, candidates))
        guest, pair = candidates[0]
        owners.setdefault(guest, []).append(pair)
    return list(owners.items())


async def _claims(agent: ThisAgent, numbers: set[int]) -> list[tuple[Guest, list[QueuePair]]]:
    """The queue pairs that each guest says it has, but for those that the kernel says it has not.

    Nobody is asked who by the kernel's word has none of these numbers.
    """
    limit, holdings = agent.config.deadlines.guest, await agent.resources.holdings()

    async def ask(guest: Guest) -> tuple[Guest, list[QueuePair]]:
        try:
            pairs = [one for one in await guest.queue_pairs(limit) if one.pqpn in numbers]
            if holdings is None or not pairs:
                return guest, pairs
            contexts = await guest.contexts(limit)
        except GuestError as error:
            # If it owns one of those that are looked for, that one will be missed by name.
            _log.warning("%s", error)
            return guest, []
        objections = {one: holdings.objection(guest, contexts, one) for one in pairs}
        said = [one for one in objections.values() if one]
        if said:  # it may list the same number as often as it likes
            _log.warning("%s%s", said[0], f", and {len(said) - 1} more like that" if said[1:] else "")
        return guest, [one for one in pairs if not objections[one]]

    everybody = agent.guests.all()
    asked = everybody if holdings is None else holdings.possible_holders(everybody, numbers)
    return list(await asyncio.gather(*(ask(guest) for guest in asked)))


async def find_hearers(agent: ThisAgent, migration: str, datagrams: list[Message]) -> list[Guest]:
    """Which processes have sent datagrams to where these queue pairs are; they are to learn where they will be.

    Raises `GuestError` for one of them that could not do as it is told then.
    """
    places, own = {one["gid"] for one in datagrams}, agent.store.find(migration, SourceData)
    limit = agent.config.deadlines.guest

    async def ask(guest: Guest) -> Guest | None:
        try:
            addresses = await guest.addresses(limit)
        except (GuestError, MessageError) as error:
            _log.warning("%s", error)  # it goes on sending to where they were
            return None
        talks = any(
            one.gid in places and one.kind in (AddressKind.PEER, AddressKind.FORMER) for one in addresses
        )
        if talks and any(one.kind is AddressKind.BLIND for one in addresses):
            raise GuestError(
                f"{guest} on {agent.identity.name} sends datagrams to the container, and has queue pairs for them that "
                "cannot be told of a move"
            )
        return guest if talks else None

    if not datagrams:
        return []
    # Nobody is asked who has no queue pair for them: an answer takes the process a while in which its verbs wait.
    everybody, holdings = agent.guests.all(), await agent.resources.holdings()
    asked = everybody if holdings is None else holdings.who_takes_datagrams(everybody)
    # Those that move with it learn it at their new place.
    found = await wait_for_all(
        *(ask(guest) for guest in asked if own is None or not own.data.concerns(guest.container))
    )
    return [one for one in found if one is not None]


Owners = list[tuple[Guest, list[QueuePair]]]
"""Who takes part, and with which of his queue pairs: none of who only hears of it."""


async def require_free(agent: ThisAgent, migration: str, owners: Owners) -> None:
    """Whether none of these takes part in another migration; `BusyError` names it.

    Who only hears of the other one, and of this one as well, is told of each when it is over.

    Of two ends that are checkpointed at once each refuses the other. One must win: that of the lower name. The other
    is refused by it without a wait, so here it is waited for until that has happened. It then waits for its turn. That
    it is undone is not the end of it: its processes are still to hear so.
    """
    other = _other_migration(agent, migration, owners)
    if other is not None and (_gives_way(other, migration) or not other.is_busy):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(agent.config.deadlines.peer):
                await agent.tasks.decided(other.id)
        other = _other_migration(agent, migration, owners)
    if other is not None:
        raise BusyError(
            f"a partner on {agent.identity.name} takes part in migration {other.id} "
            f"({other.state.value}): try again when that has ended"
        )


def _other_migration(agent: ThisAgent, migration: str, owners: Owners) -> AnyRecord | None:
    for record in agent.store.every():
        if record.id == migration and record.role is Role.PARTNER:
            continue
        for guest, pairs in owners:
            # Who has still to hear how one has ended is told again, which would end the next one as well.
            is_open = record.is_busy or guest.name in record.data.pending
            if is_open and _takes_part(record, guest, only_hears=not pairs):
                return record
    return None


def _takes_part(record: AnyRecord, guest: Guest, *, only_hears: bool) -> bool:
    if not record.data.concerns(guest.container, guest.name):
        return False
    if not isinstance(record.data, PartnerData):
        return True
    named = [
        one for one in record.data.guests if (one.container, one.process) == (guest.container, guest.name)
    ]
    if not guest.container:  # another process may have its name
        named = [one for one in named if one.process_id is None or one.process_id.pid == guest.process.pid]
    return any(not (only_hears and one.only_hears) for one in named)


def _gives_way(record: AnyRecord, migration: str) -> bool:
    return record.role is Role.SOURCE and record.state is State.SUSPENDING and record.id > migration


@dataclass
class Prepared:
    """What a process of a partner's host has been made ready with, as in the answer to *prepare*."""

    connections: list[Message] = field(default_factory=list)
    lost: list[Message] = field(default_factory=list)
    """Those of which this end is no more: a peer that has died, which the restored process is to find so."""


async def prepare_guest(
    agent: ThisAgent,
    one: PartnerGuest,
    wanted: dict[End, Message],
    keys_of_peers: dict[str, list[tuple[int, int]]],
    places: list[Message],
) -> Prepared:
    """Have a process make and connect new queue pairs, and learn the keys of who faces it; the new numbers.

    Who only hears of the move is told when it is over: nothing of the move waits for it.
    """
    if one.only_hears:
        return Prepared()
    ends = {QPName(qp.context, qp.vqpn): (qp.gid, qp.qpn) for qp in one.qps}
    guest, limit = await living_guest(agent, one), agent.config.deadlines.guest
    if guest is None:
        reason = f"{one.who} on {agent.identity.name} has ended"
        return Prepared(lost=[_lost(end, reason) for end in ends.values()])
    await guest.learn_places(places if one.hears else [], limit)
    listed = await guest.queue_pairs(limit)
    there = {pair.name for pair in listed if pair.is_connected}
    failed = {pair.name for pair in listed if pair.has_failed}
    open_ones = [name for name in ends if name in there]
    pairs = {pair.name: pair for pair in await guest.prepare(open_ones, limit)} if open_ones else {}
    # One without a successor is connected, but not to whom it was when it was quiesced.
    closed = [name for name in ends if name not in there or (name in pairs and not pairs[name].next_pqpn)]
    who = f"{one.who} on {agent.identity.name}"
    reasons = {True: f"{who} has it in the error state", False: f"{who} has closed it"}
    lost = [_lost(ends.pop(name), reasons[name in failed]) for name in closed]
    if not ends:
        return Prepared(lost=lost)
    if not ends.keys() <= pairs.keys():
        raise GuestError(f"{guest} prepared {len(pairs)} queue pairs where {len(ends)} were asked for")
    await guest.connect([_connect(name, wanted[end]) for name, end in ends.items()], limit)
    # The numbers before the keys, which a guest without an agent takes for the sign that it knows all.
    for peer in sorted({wanted[ends[name]]["peer"] for name in ends if pairs[name].names_srqs}):
        await guest.learn_keys(peer, keys_of_peers.get(remote_keys.srqs_of(peer), []), limit, srqs=True)
    for peer in sorted({wanted[end]["peer"] for end in ends.values()}):
        await guest.learn_keys(peer, keys_of_peers.get(peer, []), limit)
    return Prepared(
        [
            {
                "gid": end[0],
                "qpn": end[1],
                "new_gid": pairs[name].sgid,
                "new_qpn": pairs[name].next_pqpn,
                "process": guest.name,
            }
            for name, end in ends.items()
        ],
        lost,
    )


def _lost(end: End, reason: str) -> Message:
    return {"gid": end[0], "qpn": end[1], "reason": reason[:1024]}


async def living_guest(agent: ThisAgent, one: PartnerGuest) -> Guest | None:
    """The process; None: it has ended. `GuestError`: it is not connected, but it lives."""
    try:
        return await connected_guest(agent, one)
    except GuestError:
        if one.process_id is None or agent.containers.is_alive(one.process_id):
            raise
        return None


async def connected_guest(agent: ThisAgent, one: PartnerGuest) -> Guest:
    """The process, which is given time to connect if this agent has only just started; `GuestError`: it has not."""
    guests, who = agent.guests, (one.container, one.process, one.process_id)

    def there() -> Guest | None:
        found = guests.find(*who)
        # A name is its bearer's own word, known to whoever has faced it: another process of the container may take it.
        is_it = found is not None and agent.containers.is_it(one.process_id, found.process.pid)
        return found if is_it else None

    await guests.wait_for_returning_guests(lambda: there() is not None)
    guest = there()
    if guest is None:
        raise GuestError(
            f"{one.who} on {agent.identity.name}, a partner, is not connected to its agent: "
            "it has ended, or hangs"
        )
    return guest


def describe_owner(agent: ThisAgent, guest: Guest, pairs: list[QueuePair], *, hears: bool) -> PartnerGuest:
    """What is kept of a process and its queue pairs that take part."""
    guest.differs = True  # before it does, so that what was said of it before has lapsed by then
    return PartnerGuest(
        container=guest.container,
        process=guest.name,
        who=str(guest),
        qps=[PartnerQP(one.name.context, one.name.vqpn, one.sgid, one.pqpn) for one in pairs],
        process_id=agent.containers.identify(guest.process.pid),
        hears=hears,
    )


def names_of(one: PartnerGuest) -> list[QPName]:
    """Its queue pairs as the guest calls them."""
    return [QPName(qp.context, qp.vqpn) for qp in one.qps]


def _connect(name: QPName, one: Message) -> Connect:
    return Connect(name, one["new_peer_qpn"], one["new_peer_gid"], one["sq_psn"], one["rq_psn"], one["peer"])


def _explain_owner(host: str, end: End, other: End, found: list[tuple[Guest, QueuePair]]) -> str:
    what = (
        f"QP 0x{end[1]:x} of {gids.shown(end[0])} (connected to QP 0x{other[1]:x} of {gids.shown(other[0])})"
    )
    if found:
        return f"on {host}, {' and '.join(str(guest) for guest, _ in found)} both claim {what}"
    return (
        f"on {host}, no process with the guest library has {what}: "
        "start the partner's container with --runtime=migrrdma as well"
    )
