"""The manifest of a checkpoint, written by its source once no process can change anything any more."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable

from migrrdma_runtime.agent.local.devices import ROCE_V2
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Address, AddressKind, Context, QueuePair
from migrrdma_runtime.agent.roles.numbers import unproven
from migrrdma_runtime.agent.roles.participants import (
    Connection,
    Mover,
    Participants,
    PartnerAgent,
    look_into,
    require_devices,
    require_few_datagrams,
    require_memory,
    require_movable,
    require_no_others,
    require_none_is_being_connected,
    require_own_gids,
)
from migrrdma_runtime.agent.roles.records import SourceRecord
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.base.errors import GuestError
from migrrdma_runtime.wire import agent_messages, manifest, remote_keys
from migrrdma_runtime.wire.agent_messages import Message

MOST_GIDS = 16
"""``MIG_GID_MAPS``: of one device of a process, so many can be what they are not at its next place."""

_PREPARE_BESIDE = 1 << 16
"""Bytes of a *prepare* beside its connections and keys: names of processes and agents, far fewer than that."""


async def describe(agent: ThisAgent, record: SourceRecord, participants: Participants, token: str) -> Message:
    """The manifest, as things are now that no process can change them."""
    agent.fault_point("source: describe")
    after: list[Mover] = await wait_for_all(*(look_into(agent, one.guest) for one in participants.movers))
    # Made since they were asked first; from PARK on nothing is made any more.
    require_movable(record.data.container, after)
    require_none_is_being_connected(agent, after, record.data.names)
    require_devices(agent, after)
    require_few_datagrams(after)
    await require_own_gids(agent, after)
    await require_memory(agent, after)
    await require_no_others(agent, record.data.container, participants.movers)
    before = {_key(one.guest, pair) for one in participants.movers for pair in one.pairs if pair.is_connected}
    pairs = [(_key(one.guest, pair), pair) for one in after for pair in one.pairs]
    now = {key for key, pair in pairs if pair.is_connected}
    # One that has failed since is restored so; its other end, which takes part, is connected to it and learns it so.
    now |= {key for key, pair in pairs if pair.has_failed and key in before}
    changed = sorted({f"QP 0x{vqpn:x}" for _, _, vqpn, _ in before ^ now})
    if changed:
        raise GuestError(
            f"connections of container {record.data.container:.12} came or went while it was quiesced "
            f"({', '.join(changed[:8])}): try again"
        )
    _require_same_datagrams(record, participants, after)
    if record.data.names:
        # Made since: on the disk with the next state. There is no time to ask the kernel whose they are.
        record.data.unproven = unproven(after, record.data.qpns)
    for partner in participants.partners:
        _require_sendable(partner, after, len(participants.datagrams))
    devices = sorted({context.real_device for one in after for context in one.contexts})
    # Not in the event loop: a GID table is a thousand small files, pyverbs takes its time to load.
    capabilities, kinds = await asyncio.to_thread(_survey, agent, devices)
    return manifest.seal(
        {
            "migration": record.id,
            "token": token,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "container": record.data.container,
            "left_running": record.data.left_running,
            "source": agent.contact.as_message(),
            "devices": capabilities,
            "guests": [
                _describe_guest(one, kinds, _kept(agent))
                | {
                    "names": record.data.names.get(one.guest.name, []),
                    "qpns": record.data.qpns.get(one.guest.name, []),
                }
                for one in after
            ],
            "partners": [
                {**one.contact.as_message(), "connections": _ends(one.connections)}
                for one in participants.partners
            ],
            "internal": _ends(participants.internal),
            "datagrams": participants.datagrams,
        }
    )


def _require_same_datagrams(record: SourceRecord, participants: Participants, after: list[Mover]) -> None:
    """Whether everybody who is to learn of the move has been told that it begins, and of the same queue pairs."""

    def said(movers: list[Mover]) -> tuple[list[Message], set[str]]:
        peers = {
            address.gid for one in movers for address in one.addresses if address.kind is AddressKind.PEER
        }
        return [one for mover in movers for one in mover.datagrams], peers

    (before, peers), (now, peers_now) = said(participants.movers), said(after)
    if before != now or not peers_now <= peers:
        raise GuestError(
            f"container {record.data.container:.12} made or ended queue pairs for datagrams, or began to send to "
            "another host, while it was quiesced: try again"
        )


def _require_sendable(partner: PartnerAgent, movers: list[Mover], datagrams: int) -> None:
    """Whether the restore can ask this partner to prepare: found out now, since the dump ends the container."""
    longest = ":".join(["ffff"] * 8)
    connection = {
        **dict.fromkeys(("gid", "new_peer_gid"), longest),
        **dict.fromkeys(("qpn", "new_peer_qpn", "sq_psn", "rq_psn"), 0xFFFFFF),
        "peer": "0" * 16,
    }
    place = {
        **dict.fromkeys(("vgid", "gid", "new_gid"), longest),
        **dict.fromkeys(("vqpn", "qpn", "new_qpn"), 0xFFFFFF),
    }
    keys = sum(
        one.inventory.counts.get("keys", 0)
        for one in movers
        if any(guest.name == one.guest.name for guest, _ in partner.connections)
    )
    size = len(partner.connections) * (len(agent_messages.encode(connection)) + 1)
    size += datagrams * (len(agent_messages.encode(place)) + 1)
    # Each key is told to one domain's other ends at the most, and as unusable to those of another (usable_keys.py).
    domains = len({(guest.name, pair.domain) for guest, pair in partner.connections})
    domains += len({(guest.name, pair.domain) for guest, pair in partner.connections if pair.is_target})
    size += remote_keys.packed_size(2 * keys, domains) + _PREPARE_BESIDE
    if size > agent_messages.MAX_BYTES:
        raise GuestError(
            f"{len(partner.connections)} connections to {partner.contact.name}, {datagrams} queue pairs for datagrams "
            f"and {keys} memory keys make a message of {size >> 20} MiB at the restore, more than the "
            f"{agent_messages.MAX_BYTES >> 20} MiB that one may have"
        )


def _survey(
    agent: ThisAgent, devices: list[str]
) -> tuple[dict[str, dict[str, int]], dict[tuple[str, str], str]]:
    """What these devices can carry, and of which type their GIDs are, by device and GID."""
    tables = {name: agent.devices.gid_table(name) for name in devices}
    kinds = {(name, entry.gid): entry.type for name, table in tables.items() for entry in table}
    return {name: agent.devices.capabilities(name) for name in devices}, kinds


def _kept(agent: ThisAgent) -> frozenset[AddressKind]:
    """Which GIDs an application is to see after the move as before, beside those that its connections use."""
    datagrams = frozenset({AddressKind.OWN})
    if not agent.config.late_comers:  # nobody would find it by the others
        return datagrams
    return datagrams | {AddressKind.KNOWN, AddressKind.TOLD}


def _describe_guest(one: Mover, kinds: dict[tuple[str, str], str], kept: frozenset[AddressKind]) -> Message:
    return {
        "process": one.guest.name,
        "pid": one.guest.pid_in_container,
        "command": one.guest.process.command,
        "build_id": one.guest.build_id,
        "objects": one.inventory.counts,
        "contexts": _describe_contexts(one, kinds, kept),
    }


def _describe_contexts(
    mover: Mover, kinds: dict[tuple[str, str], str], kept: frozenset[AddressKind]
) -> list[Message]:
    # Of each once: there may be a hundred thousand of the one, and hundreds of the other.
    pairs: dict[int, list[QueuePair]] = {}
    for pair in mover.pairs:
        if pair.is_connected:
            pairs.setdefault(pair.name.context, []).append(pair)
    addresses: dict[int, list[Address]] = {}
    for one in mover.addresses:
        if one.kind in kept:
            addresses.setdefault(one.context, []).append(one)
    return [
        _describe_context(context, pairs.get(context.id, []), addresses.get(context.id, []), kinds)
        for context in mover.contexts
    ]


def _describe_context(
    context: Context, pairs: list[QueuePair], addresses: list[Address], kinds: dict[tuple[str, str], str]
) -> Message:
    used = sorted(
        {(pair.port, pair.sgid_index, pair.sgid) for pair in pairs}
        | {(one.port, one.index, one.gid) for one in addresses if one.kind is not AddressKind.TOLD}
    )
    # What it has asked for, and may have told to others; not worth a restore, as far as it uses it for nothing.
    places = {(port, index) for port, index, _ in used}
    told = sorted(
        {
            (one.port, one.index, one.gid)
            for one in addresses
            if one.kind is AddressKind.TOLD and (one.port, one.index) not in places
        }
    )
    # By the GID: port and index are those that the application uses, of its first device.
    device = context.real_device
    found = [
        {
            "port": port,
            "index": index,
            "gid": gid,
            "type": kinds.get((device, gid), ROCE_V2),
            "used": (port, index) in places,
        }
        for port, index, gid in [*used, *told][: max(len(used), MOST_GIDS)]
    ]
    return {"context": context.id, "device": context.real_device, "gids": found}


def _key(guest: Guest, pair: QueuePair) -> tuple[str, int, int, tuple[str, int]]:
    """A connection: one that an application has taken down and made to another end is not the same any more."""
    return guest.name, pair.name.context, pair.name.vqpn, pair.other_end


def _ends(connections: Iterable[Connection]) -> list[Message]:
    return [
        {
            "process": guest.name,
            "context": pair.name.context,
            "vqpn": pair.name.vqpn,
            "gid": pair.sgid,
            "qpn": pair.pqpn,
            "peer_gid": pair.dgid,
            "peer_qpn": pair.dest_pqpn,
        }
        for guest, pair in connections
    ]
