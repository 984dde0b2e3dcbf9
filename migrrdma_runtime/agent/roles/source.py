"""A checkpoint, as its host's agent conducts it.

:meth:`Source.checkpoint` is the protocol; the rest are its steps.
"""

from __future__ import annotations

import logging

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.runtime_api import Runtime, RuntimeApi, Verdict
from migrrdma_runtime.agent.roles.checkpoint_document import describe
from migrrdma_runtime.agent.roles.participants import (
    Mover,
    Participants,
    PartnerAgent,
    find_movers,
    find_participants,
)
from migrrdma_runtime.agent.roles.records import SourceData, SourceRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.agent.roles.timeline import Timeline
from migrrdma_runtime.base.errors import AgentError, CheckpointError, MigrRDMAError
from migrrdma_runtime.wire import tokens
from migrrdma_runtime.wire.agent_messages import Contact, Message

_log = logging.getLogger(__name__)


class Source:
    """The agent in the source's role."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._store = agent.store
        self._deadlines = agent.config.deadlines

    async def checkpoint(self, container: str, leave_running: bool, runtime: Runtime) -> Message:
        """Quiesce a container's RDMA, have the runtime dump it, keep its place for whoever restores it."""
        timeline = Timeline(self._agent.identity.name)
        movers = await find_movers(
            self._agent, container
        )  # nothing is touched before all that can be refused was
        if not movers:
            return {"rdma": False}
        participants = await find_participants(self._agent, movers)
        token = tokens.new_token()
        record = self._begin(container, leave_running, participants, token, runtime)
        try:
            with timeline.step("suspend"), runtime.step("suspending partners"):
                await self._suspend(record, participants, token)
            with timeline.step("drain"), runtime.step("draining both ends"):
                await self._drain(record, participants)
            await self._park(movers)
            document = await describe(self._agent, record, participants, token)
            await self._hang_up(movers)
            self._agent.fault_point("source: dumping")
            self._store.move(record, State.DUMPING, timeline=timeline.steps)
            runtime.ready(record.id, document)
        except Exception as error:  # not CancelledError: an agent that is stopped leaves everything as it is
            await self._undo(record, str(error), timeline)
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
            reason = "the container goes on running" if verdict.succeeded else "the runtime could not dump it"
            await self._undo(record, reason, timeline)
        if verdict.died:
            raise CheckpointError(f"the runtime ended during the dump of container {record.data.container}")
        return {"rdma": True, "migration": record.id, "timeline": timeline.steps}

    def recover(self, api: RuntimeApi) -> None:
        """After a start: undo what was begun, wait on where a dump is under way."""
        for record in self._store.all(SourceData):
            if record.state is State.SUSPENDING:
                self._agent.tasks.decide(record.id, self._undo(record, "the agent was restarted"))
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

    def _begin(
        self,
        container: str,
        leave_running: bool,
        participants: Participants,
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
                guests=[one.guest.name for one in participants.movers],
                processes=[
                    self._agent.containers.identify(one.guest.process.pid) for one in participants.movers
                ],
                partners=[Contact(one.name, one.address) for one in participants.partners],
                runtime=runtime.process,
            ),
        )

    async def _suspend(self, record: SourceRecord, participants: Participants, token: str) -> None:
        """Have every partner's agent find the other ends and take part, before anything is quiesced."""

        async def suspend(partner: PartnerAgent) -> None:
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

        await wait_for_all(*(suspend(partner) for partner in participants.partners))

    async def _drain(self, record: SourceRecord, participants: Participants) -> None:
        """Quiesce both ends at once: neither drains without the other's receives."""
        seconds, margin = self._deadlines.drain, self._deadlines.guest
        request = {"migration": record.id, "seconds": seconds}
        limit = seconds + margin + self._deadlines.peer
        self._agent.fault_point("source: drain")
        await wait_for_all(
            *(self._agent.ask(partner.address, "drain", request, limit) for partner in participants.partners),
            *(one.guest.quiesce(None, seconds, margin) for one in participants.movers),
        )

    async def _park(self, movers: list[Mover]) -> None:
        """Have the guests let go of the device."""
        self._agent.fault_point("source: park")
        await wait_for_all(*(one.guest.park(self._deadlines.guest) for one in movers))

    async def _hang_up(self, movers: list[Mover]) -> None:
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

    async def _undo(self, record: SourceRecord, reason: str, timeline: Timeline | None = None) -> None:
        """Undo a checkpoint: both ends go on, on the connections they have."""
        try:
            steps = timeline.steps if timeline else record.data.timeline
            self._store.move(record, State.UNDONE, pending=record.data.guests, reason=reason, timeline=steps)
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
