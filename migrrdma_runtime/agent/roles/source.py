"""A checkpoint, as its host's agent conducts it.

:meth:`Source.checkpoint` is the protocol; the rest are its steps.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from migrrdma_runtime.agent.local.devices import ROCE_V2
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Context, Inventory, QueuePair
from migrrdma_runtime.agent.local.runtime_api import Runtime, RuntimeApi, Verdict
from migrrdma_runtime.agent.roles.records import SourceData, SourceRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.agent.roles.timeline import Timeline
from migrrdma_runtime.base.errors import AgentError, CheckpointError, GuestError, MigrRDMAError, RefusedError
from migrrdma_runtime.wire import agent_messages, manifest, tokens
from migrrdma_runtime.wire.agent_messages import Contact, Message

_log = logging.getLogger(__name__)


@dataclass
class _Mover:
    """A process that is to be moved, and what it holds."""

    guest: Guest
    inventory: Inventory
    contexts: list[Context]
    pairs: list[QueuePair]


@dataclass
class _PartnerAgent:
    """The agent of a host with other ends, and these connections as the source sees them."""

    name: str
    address: str
    connections: list[tuple[Guest, QueuePair]]


class Source:
    """The agent in the source's role."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._store = agent.store
        self._deadlines = agent.config.deadlines

    async def checkpoint(self, container: str, leave_running: bool, runtime: Runtime) -> Message:
        """Quiesce a container's RDMA, have the runtime dump it, keep its place for whoever restores it."""
        timeline = Timeline(self._agent.identity.name)
        movers = await self._examine(container)  # nothing is touched before all that can be refused was
        if not movers:
            return {"rdma": False}
        partners, internal = await self._find_partners(movers)
        token = tokens.new_token()
        record = self._begin(container, leave_running, movers, partners, token, runtime)
        try:
            with timeline.step("suspend"), runtime.step("suspending partners"):
                await self._suspend(record, partners, token)
            with timeline.step("drain"), runtime.step("draining both ends"):
                await self._drain(record, movers, partners)
            await self._park(movers)
            document = await self._describe(record, movers, partners, internal, token)
            await self._hang_up(movers)
            self._agent.fault_point("source: dumping")
            self._store.move(record, State.DUMPING, timeline=timeline.steps)
            runtime.ready(record.id, document)
        except Exception:  # not CancelledError: an agent that is stopped leaves everything as it is
            await self._undo(record)
            raise
        return await self._after_dump(record, runtime)

    async def _after_dump(self, record: SourceRecord, runtime: Runtime) -> Message:
        """Go on once the runtime has dumped the container, or failed to."""
        timeline = Timeline(self._agent.identity.name, record.data.timeline)
        with timeline.step("dump"):
            verdict = await self._verdict(record, runtime)
        timeline.add_all(verdict.steps)
        self._agent.fault_point("source: dumped")
        if verdict.succeeded and not record.data.left_running:
            # ═══ The application is in the image now. From here on a claim and its commit decide
            # (arbiter.py).
            self._store.move(record, State.PARKED, timeline=timeline.steps)
        else:
            await self._undo(record)
        if verdict.died:
            raise CheckpointError(f"the runtime ended during the dump of container {record.data.container}")
        return {"rdma": True, "migration": record.id, "timeline": timeline.steps}

    def recover(self, api: RuntimeApi) -> None:
        """After a start: undo what was begun, wait on where a dump is under way."""
        for record in self._store.all(SourceData):
            if record.state is State.SUSPENDING:
                self._agent.tasks.decide(record.id, self._undo(record))
            elif record.state is State.DUMPING:
                runtime = api.runtime_of(record.data.runtime)
                api.expect(record.id)  # from now on: its report may come before we wait for it
                self._agent.tasks.decide(record.id, self._conclude(record, runtime))

    async def settle(self, guest: Guest, record: SourceRecord) -> None:
        """Have a guest go on that was not there when its migration was undone."""
        async with self._agent.lock(f"{record.id} {guest.name}"):
            pending = record.data.pending
            if record.state is State.UNDONE and guest.name in pending:
                await guest.undo(self._deadlines.guest)
                self._agent.guests.stop_asking(guest.name)
                self._store.note(record, pending=_without(guest.name, record))

    # --- before anything is touched ---------------------------------------------------------------------

    async def _examine(self, container: str) -> list[_Mover]:
        """What the container holds of RDMA; refuses what cannot be moved, by name."""
        holders = self._agent.containers.holders(container)
        await self._agent.guests.have_pids({one.pid for one in holders})
        guests = self._agent.guests.of_container(container)
        known = {guest.process.pid for guest in guests}
        strangers = [one for one in holders if one.pid not in known]
        if strangers:
            raise GuestError(
                f"{', '.join(str(one) for one in strangers)} of container {container:.12} has an RDMA device "
                "open without the guest library (or its agent's connection): start the container with "
                "--runtime=migrrdma, and the program dynamically linked"
            )
        self._require_free(container)
        movers: list[_Mover] = await wait_for_all(*(self._look_into(guest) for guest in guests))
        movers = [one for one in movers if one.contexts]
        reasons = [f"{one.guest}: {reason}" for one in movers for reason in one.inventory.reasons]
        if reasons:
            raise GuestError(f"container {container:.12} cannot be migrated: {'; '.join(reasons)}")
        return movers

    async def _look_into(self, guest: Guest) -> _Mover:
        limit = self._deadlines.guest
        return _Mover(
            guest,
            await guest.inventory(limit),
            await guest.contexts(limit),
            await guest.queue_pairs(limit),
        )

    def _require_free(self, container: str) -> None:
        for record in self._store.every():
            if record.is_busy and record.data.concerns(container):
                raise RefusedError(
                    f"container {container:.12} takes part in migration {record.id} ({record.role.value}, "
                    f"{record.state.value}): try again when that has ended"
                )

    async def _find_partners(
        self, movers: list[_Mover]
    ) -> tuple[list[_PartnerAgent], list[tuple[Guest, QueuePair]]]:
        """The agents of all other ends, which must be reachable, and the connections within the container."""
        connections = [(one.guest, pair) for one in movers for pair in one.pairs if pair.is_connected]
        ends = {pair.end for _, pair in connections}
        internal = [one for one in connections if one[1].other_end in ends]
        by_address: dict[str, list[tuple[Guest, QueuePair]]] = {}
        for one in connections:
            if one[1].other_end not in ends:
                by_address.setdefault(self._agent.config.agent_for(one[1].dgid), []).append(one)

        async def greet(address: str) -> str:
            answer = await self._agent.ask(address, "hello", {"version": agent_messages.VERSION})
            if answer["version"] != agent_messages.VERSION:
                raise AgentError(
                    f"the agent at {address} speaks version {answer['version']} and this one "
                    f"{agent_messages.VERSION}: install the same migrrdma on both hosts"
                )
            return str(answer["name"])

        names = await wait_for_all(*(greet(address) for address in by_address))
        partners: dict[str, _PartnerAgent] = {}
        for name, (address, ones) in zip(names, by_address.items(), strict=True):
            # A host with several addresses is one partner.
            partners.setdefault(name, _PartnerAgent(name, address, [])).connections.extend(ones)
        return list(partners.values()), internal

    # --- the steps --------------------------------------------------------------------------------------

    def _begin(
        self,
        container: str,
        leave_running: bool,
        movers: list[_Mover],
        partners: list[_PartnerAgent],
        token: str,
        runtime: Runtime,
    ) -> SourceRecord:
        own_key = tokens.key_for(token, self._agent.identity.name)
        return self._store.begin(
            tokens.new_migration(),
            SourceData(
                container=container,
                left_running=leave_running,
                key_digest=tokens.digest(own_key),
                guests=[one.guest.name for one in movers],
                processes=[self._agent.containers.identify(one.guest.process.pid) for one in movers],
                partners=[Contact(one.name, one.address) for one in partners],
                runtime=runtime.process,
            ),
        )

    async def _suspend(self, record: SourceRecord, partners: list[_PartnerAgent], token: str) -> None:
        """Have every partner's agent find the other ends and take part, before anything is quiesced."""

        async def suspend(partner: _PartnerAgent) -> None:
            self._agent.fault_point(f"source: suspend {partner.name}")
            request = {
                "migration": record.id,
                "source": self._agent.contact.as_message(),
                "key_digest": tokens.digest(tokens.key_for(token, partner.name)),
                "connections": [
                    {"gid": pair.dgid, "qpn": pair.dest_pqpn, "peer_gid": pair.sgid, "peer_qpn": pair.pqpn}
                    for _, pair in partner.connections
                ],
            }
            limit = self._deadlines.peer + self._deadlines.guest  # it asks all of its guests
            await self._agent.ask(partner.address, "suspend", request, limit)

        await wait_for_all(*(suspend(partner) for partner in partners))

    async def _drain(self, record: SourceRecord, movers: list[_Mover], partners: list[_PartnerAgent]) -> None:
        """Quiesce both ends at once: neither drains without the other's receives."""
        seconds, margin = self._deadlines.drain, self._deadlines.guest
        request = {"migration": record.id, "seconds": seconds}
        limit = seconds + margin + self._deadlines.peer
        self._agent.fault_point("source: drain")
        await wait_for_all(
            *(self._agent.ask(partner.address, "drain", request, limit) for partner in partners),
            *(one.guest.quiesce(None, seconds, margin) for one in movers),
        )

    async def _describe(
        self,
        record: SourceRecord,
        movers: list[_Mover],
        partners: list[_PartnerAgent],
        internal: list[tuple[Guest, QueuePair]],
        token: str,
    ) -> Message:
        """The manifest, as things are now that no process can change them."""
        self._agent.fault_point("source: describe")
        after: list[_Mover] = await wait_for_all(*(self._look_into(one.guest) for one in movers))
        before = {_key(one.guest, pair): pair for one in movers for pair in one.pairs if pair.is_connected}
        now = {_key(one.guest, pair): pair for one in after for pair in one.pairs if pair.is_connected}
        changed = [f"QP 0x{key[2]:x}" for key in before.keys() ^ now.keys()]
        if changed:
            raise GuestError(
                f"connections of container {record.data.container:.12} came or went while it was quiesced "
                f"({', '.join(changed[:8])}): try again"
            )
        devices = sorted({context.real_device for one in after for context in one.contexts})
        # Not in the event loop: a GID table is a thousand small files, pyverbs takes its time to load.
        capabilities, kinds = await asyncio.to_thread(self._survey, devices)
        return manifest.seal(
            {
                "migration": record.id,
                "token": token,
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "container": record.data.container,
                "left_running": record.data.left_running,
                "source": self._agent.contact.as_message(),
                "devices": capabilities,
                "guests": [self._describe_guest(one, kinds) for one in after],
                "partners": [
                    {"name": one.name, "address": one.address, "connections": _ends(one.connections)}
                    for one in partners
                ],
                "internal": _ends(internal),
            }
        )

    def _survey(self, devices: list[str]) -> tuple[dict[str, dict[str, int]], dict[tuple[str, str], str]]:
        """What these devices can carry, and of which type their GIDs are, by device and GID."""
        tables = {name: self._agent.devices.gid_table(name) for name in devices}
        kinds = {(name, entry.gid): entry.type for name, table in tables.items() for entry in table}
        return {name: self._agent.devices.capabilities(name) for name in devices}, kinds

    def _describe_guest(self, one: _Mover, kinds: dict[tuple[str, str], str]) -> Message:
        return {
            "process": one.guest.name,
            "pid": one.guest.pid_in_container,
            "command": one.guest.process.command,
            "build_id": one.guest.build_id,
            "objects": one.inventory.counts,
            "contexts": [self._describe_context(context, one.pairs, kinds) for context in one.contexts],
        }

    def _describe_context(
        self, context: Context, pairs: list[QueuePair], kinds: dict[tuple[str, str], str]
    ) -> Message:
        used = sorted(
            {
                (pair.port, pair.sgid_index, pair.sgid)
                for pair in pairs
                if pair.name.context == context.id and pair.is_connected
            }
        )
        # By the GID: port and index are those that the application uses, of its first device.
        device = context.real_device
        found = [
            {"port": port, "index": index, "gid": gid, "type": kinds.get((device, gid), ROCE_V2)}
            for port, index, gid in used
        ]
        return {"context": context.id, "device": context.real_device, "gids": found}

    async def _park(self, movers: list[_Mover]) -> None:
        """Have the guests let go of the device."""
        self._agent.fault_point("source: park")
        await wait_for_all(*(one.guest.park(self._deadlines.guest) for one in movers))

    async def _hang_up(self, movers: list[_Mover]) -> None:
        """Have the guests let go of us: a process is not dumped with our socket open."""
        self._agent.fault_point("source: hang up")
        for one in movers:
            self._agent.guests.stop_asking(one.guest.name)
        await wait_for_all(*(one.guest.hang_up(self._deadlines.guest) for one in movers))

    async def _verdict(self, record: SourceRecord, runtime: Runtime) -> Verdict:
        verdict = await runtime.verdict(record.id)
        if not verdict.died:
            return verdict
        # Nobody can tell us how the dump went but what it left behind. CRIU kills what it has dumped in the
        # end.
        alive = any(self._agent.containers.is_alive(one) for one in record.data.processes)
        _log.warning("the runtime ended during the dump; the container %s", "lives" if alive else "is gone")
        return Verdict(succeeded=not alive, died=True)

    async def _conclude(self, record: SourceRecord, runtime: Runtime) -> None:
        """Go on with a checkpoint that another agent process began."""
        try:
            runtime.finished(await self._after_dump(record, runtime))
        except MigrRDMAError as error:
            runtime.failed(error)

    async def _undo(self, record: SourceRecord) -> None:
        """Undo a checkpoint: both ends go on, on the connections they have."""
        try:
            self._store.move(record, State.UNDONE, pending=record.data.guests)
        except AgentError as error:
            # The disk is full. Whoever reads the record will undo it again, which does no harm.
            _log.error("%s", error)
            record.state = State.UNDONE
            record.data.pending = list(record.data.guests)
        await wait_for_all(
            *(self._undo_at_partner(record, partner) for partner in record.data.partners),
            *(self._undo_at_guest(record, name) for name in record.data.guests),
        )

    async def _undo_at_partner(self, record: SourceRecord, partner: Contact) -> None:
        try:
            limit = self._deadlines.peer + self._deadlines.guest
            await self._agent.ask(partner.address, "undo", {"migration": record.id}, limit)
        except AgentError as error:
            _log.warning("%s; it will ask", error)

    async def _undo_at_guest(self, record: SourceRecord, name: str) -> None:
        self._agent.guests.ask_to_connect(name)
        try:
            [guest] = await self._agent.guests.wait_for(record.data.container, [name], self._deadlines.guest)
            await self.settle(guest, record)
        except AgentError as error:
            _log.warning("%s; it will be told to go on when it connects", error)


def _without(name: str, record: SourceRecord) -> list[str]:
    return [one for one in record.data.pending if one != name]


def _key(guest: Guest, pair: QueuePair) -> tuple[str, int, int]:
    return guest.name, pair.name.context, pair.name.vqpn


def _ends(connections: Iterable[tuple[Guest, QueuePair]]) -> list[Message]:
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
