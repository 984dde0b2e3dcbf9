"""The connections of a restored container, made again: its objects, the partners' new ends, and the numbers of both."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from migrrdma_runtime.agent.local import budget
from migrrdma_runtime.agent.local.guest import Guest, place_records
from migrrdma_runtime.agent.local.guest_objects import Connect, Context, GidChange, QueuePair
from migrrdma_runtime.agent.roles.fit import NewDevices
from migrrdma_runtime.agent.roles.records import DestinationRecord, SwitchedPartner
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import GuestError, ManifestError, RestoreError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.wire import remote_keys
from migrrdma_runtime.wire.agent_messages import Message

_End = tuple[str, int]
"""GID and QPN, as the network knew them before the move."""

_Place = tuple[str, int, int]
"""A queue pair of the container: process, context, virtual QPN."""


_NOT_CONNECTED = 1
"""``IBV_QPS_INIT``."""

_NOBODY = 1
"""A QPN at which no connection's packet is taken: that of every port's general services (IBA 3.9.3)."""


@dataclass(frozen=True)
class _Rebuilt:
    """A queue pair that was made again."""

    guest: Guest
    pair: QueuePair
    gid: str
    """Where it is now: the guest goes on naming the GIDs of the application's first device."""

    @property
    def map_name(self) -> str:
        """Of the keys by which its other end reaches memory here."""
        return remote_keys.map_name(self.guest.name, *self.pair.domain)

    @property
    def map_names(self) -> tuple[str, ...]:
        """Of all that its other end is told."""
        if self.pair.is_target:
            return self.map_name, remote_keys.srqs_of(self.map_name)
        return (self.map_name,)


class Reconnection:
    """The steps between a restored container and its commit; nothing is sent yet."""

    def __init__(self, agent: ThisAgent, document: Message) -> None:
        self._agent = agent
        self._deadlines = agent.config.deadlines
        self._document = document
        self._rebuilt: dict[_Place, _Rebuilt] = {}
        self._new_ends: dict[_End, Message] = {}
        """What the partners have prepared, by their end as it was."""
        self._new_gids: dict[tuple[str, int, int, int], str] = {}
        """By process, context, and the port and the index that the application uses."""
        self.lost: list[str] = []
        """Connections of which the other end is no more, for people."""

    async def rebuild(
        self,
        guests: list[Guest],
        devices: NewDevices,
    ) -> None:
        """Make every object again on this host's device."""
        self._agent.fault_point("destination: rebuild")
        described = {one["process"]: one for one in self._document["guests"]}

        async def rebuild_one(guest: Guest) -> list[_Rebuilt]:
            made: list[_Rebuilt] = []
            for context in described[guest.name]["contexts"]:
                device, gid_changes = devices[guest.name, context["context"]]
                pairs = await guest.rebuild(
                    context["context"], device, gid_changes, self._deadlines.reconnect
                )
                for change in gid_changes:
                    entry = self._agent.devices.entry(device, change.new_port, change.new_index)
                    if entry:
                        used = guest.name, context["context"], change.port, change.index
                        self._new_gids[used] = entry.gid
                await self._require_own(guest, context["context"], device, pairs)
                made += [_Rebuilt(guest, pair, self._new_gid(pair, device, gid_changes)) for pair in pairs]
            return made

        lists: list[list[_Rebuilt]] = await wait_for_all(*(rebuild_one(guest) for guest in guests))
        self._rebuilt = {_place_of(one): one for made in lists for one in made}

    async def _require_own(self, guest: Guest, context: int, device: str, pairs: list[QueuePair]) -> None:
        """Refuse new queue pairs that are another process's: what is for this one would be sent to that one."""
        holdings = await self._agent.resources.holdings() if pairs else None
        if holdings is None:
            return
        here = [Context(context, device, device, 0)]
        for pair in pairs:
            new = replace(pair, pqpn=pair.next_pqpn, state=_NOT_CONNECTED)
            if pair.next_pqpn and (objection := holdings.objection(guest, here, new)):
                raise GuestError(objection)

    def _new_gid(self, pair: QueuePair, device: str, changes: list[GidChange]) -> str:
        for one in changes:
            if (one.port, one.index) == (pair.port, pair.sgid_index):
                entry = self._agent.devices.entry(device, one.new_port, one.new_index)
                return entry.gid if entry else pair.sgid
        return pair.sgid

    async def prepare(self, record: DestinationRecord) -> None:
        """Give the partners the new numbers and learn theirs."""
        keys = await self.remote_keys(
            list({one.guest.name: one.guest for one in self._rebuilt.values()}.values())
        )

        async def prepare_one(partner: SwitchedPartner, described: Message) -> list[Message]:
            self._agent.fault_point(f"destination: prepare {partner.name}")
            request = {
                **record.data.show_claim(record.id, partner.key),
                "destination": self._agent.contact.as_message(),
                "connections": [self._offer(one) for one in described["connections"]],
                "places": self._places(),
                "keys": {
                    name: keys.get(name, "")
                    for one in described["connections"]
                    for name in self._made(one).map_names
                },
            }
            limit = self._deadlines.peer + 3 * self._deadlines.guest
            answer = await self._agent.ask(partner.contact, "prepare", request, limit)
            sent = {(one["gid"], one["qpn"]): one for one in request["connections"]}
            made: list[Message] = [*answer["connections"], *map(_towards_nobody, answer["lost"])]
            if len(made) != len(sent) or {(one["gid"], one["qpn"]) for one in made} != sent.keys():
                raise RestoreError(f"agent {partner.name} prepared other connections than it was asked to")
            self.lost += [
                f"QP 0x{one['qpn']:x} of {gids.shown(one['gid'])}: {printable(one['reason'])}"
                for one in answer["lost"]
            ]
            return [{**one, "offer": sent[one["gid"], one["qpn"]]} for one in made]

        described = {one["name"]: one for one in self._document["partners"]}
        lists = await wait_for_all(*(prepare_one(one, described[one.name]) for one in record.data.partners))
        self._new_ends = {(one["gid"], one["qpn"]): one for made in lists for one in made}

    async def remote_keys(self, guests: list[Guest]) -> dict[str, str]:
        """The keys by which others reach these processes' memory, by what partners file them under."""
        packed: dict[str, str] = {}
        for several in self._answering_at_once(guests):
            lists = await wait_for_all(*(one.remote_numbers(self._deadlines.guest) for one in several))
            for one, (keys, srqs) in zip(several, lists, strict=True):
                for domain, pairs in keys.items():
                    packed[remote_keys.map_name(one.name, *domain)] = remote_keys.pack(pairs)
                for domain, pairs in srqs.items():
                    name = remote_keys.srqs_of(remote_keys.map_name(one.name, *domain))
                    packed[name] = remote_keys.pack(pairs)
        return packed

    def _places(self) -> list[Message]:
        """Where the queue pairs for datagrams are, and will be."""
        return [
            {
                **{name: one[name] for name in ("vgid", "vqpn", "gid", "qpn")},
                "new_gid": self._new_gid_of(one),
                "new_qpn": self._made(one).pair.next_pqpn,
            }
            for one in self._document["datagrams"]
        ]

    def _new_gid_of(self, one: Message) -> str:
        gid = self._new_gids.get((one["process"], one["context"], one["port"], one["index"]))
        if gid is None:
            raise ManifestError(
                f"QP 0x{one['vqpn']:x} of the checkpoint sends from GID {gids.shown(one['gid'])}, which its process "
                "does not use there, or no device has here"
            )
        return gid

    def _answering_at_once(self, guests: list[Guest]) -> Iterable[list[Guest]]:
        """As many at a time as may answer: the source has asked one after the other, and the dump cannot be undone."""
        keys = {one["process"]: one["objects"].get("keys", 0) for one in self._document["guests"]}
        several: list[Guest] = []
        for one in guests:
            if several and sum(keys[each.name] for each in (*several, one)) > budget.MOST_OF_A_CONTAINER:
                yield several
                several = []
            several.append(one)
        yield several

    def _offer(self, one: Message) -> Message:
        """What a partner must know to connect to a queue pair of ours."""
        made = self._made(one)
        return {
            "gid": one["peer_gid"],
            "qpn": one["peer_qpn"],
            "new_peer_gid": made.gid,
            "new_peer_qpn": made.pair.next_pqpn,
            # Random, as the numbers of a new connection are: a packet of the old one must not fit.
            "sq_psn": secrets.randbits(24),
            "rq_psn": secrets.randbits(24),
            "peer": made.map_name,
        }

    async def connect(self) -> None:
        """Connect our ends, to the partners' and among themselves."""
        self._agent.fault_point("destination: connect")
        by_guest: dict[str, list[Connect]] = {}
        for partner in self._document["partners"]:
            for one in partner["connections"]:
                made, answer = self._made(one), self._new_ends[one["peer_gid"], one["peer_qpn"]]
                offer = answer["offer"]
                by_guest.setdefault(made.guest.name, []).append(
                    Connect(
                        made.pair.name,
                        answer["new_qpn"],
                        answer["new_gid"],
                        offer["rq_psn"],
                        offer["sq_psn"],
                        answer["process"],
                    )
                )
        for name, connect, _ in self._internal():
            by_guest.setdefault(name, []).append(connect)
        guests = {one.guest.name: one.guest for one in self._rebuilt.values()}
        limit = self._deadlines.guest
        await wait_for_all(*(guests[name].connect(ones, limit) for name, ones in by_guest.items()))
        for process, connects in by_guest.items():
            for name in {one.peer for one in connects if one.dest_pqpn == _NOBODY}:
                await guests[process].learn_keys(name, [], limit)
        places, everybody = (
            place_records(self._places()),
            {one.guest.name: one.guest for one in self._rebuilt.values()},
        )
        await wait_for_all(*(guest.learn_places(places, limit) for guest in everybody.values()))
        neighbours = {(other.guest.name, name, other.pair.domain) for name, _, other in self._internal()}
        for process in sorted({one[0] for one in neighbours}):
            keys, srqs = await guests[process].remote_numbers(limit)
            for _, name, domain in sorted(one for one in neighbours if one[0] == process):
                map_name = remote_keys.map_name(process, *domain)
                if domain in srqs:
                    await guests[name].learn_keys(map_name, srqs[domain], limit, srqs=True)
                await guests[name].learn_keys(map_name, keys.get(domain, []), limit)

    def _internal(self) -> Iterable[tuple[str, Connect, _Rebuilt]]:
        """The connections within the container: who is to connect to what, and to whom."""
        by_end = {(one["gid"], one["qpn"]): self._made(one) for one in self._document["internal"]}
        for one in self._document["internal"]:
            made, other = self._made(one), by_end.get((one["peer_gid"], one["peer_qpn"]))
            if other is None:
                raise ManifestError(
                    f"QP 0x{one['vqpn']:x} of the checkpoint faces QP 0x{one['peer_qpn']:x} of {one['peer_gid']} in "
                    "the same container, which the checkpoint does not have"
                )
            # Both ends must come to the same two numbers without a word: from what both know.
            psns = {end: end.pair.next_pqpn ^ 0x5A5A5A for end in (made, other)}
            connect = Connect(
                made.pair.name,
                other.pair.next_pqpn,
                other.gid,
                psns[made],
                psns[other],
                other.map_name,
            )
            yield made.guest.name, connect, other

    def _made(self, one: Message) -> _Rebuilt:
        made = self._rebuilt.get((one["process"], one["context"], one["vqpn"]))
        if made is None:
            raise GuestError(f"QP 0x{one['vqpn']:x} of the checkpoint was not rebuilt by its process")
        return made


def _towards_nobody(lost: Message) -> Message:
    """Where a connection leads whose other end is no more: to where nothing answers, as it does after a peer's death.

    The application learns of it as it would have: by a completion in error for whatever it sends.
    """
    return {
        "gid": lost["gid"],
        "qpn": lost["qpn"],
        "new_gid": lost["gid"],
        "new_qpn": _NOBODY,
        "process": secrets.token_hex(8),
    }


def _place_of(one: _Rebuilt) -> _Place:
    return one.guest.name, one.pair.name.context, one.pair.name.vqpn
