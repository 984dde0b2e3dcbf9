"""A checkpoint, as its host's agent conducts it.

:meth:`Source.checkpoint` is the protocol; the rest are its steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain

from migrrdma_runtime.agent.local.containers import ProcessId
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.runtime_api import Runtime, RuntimeApi, Verdict
from migrrdma_runtime.agent.roles.checkpoint_document import describe
from migrrdma_runtime.agent.roles.numbers import Called, called
from migrrdma_runtime.agent.roles.parked import tell_that_it_waits
from migrrdma_runtime.agent.roles.participants import (
    Mover,
    Participants,
    PartnerAgent,
    find_movers,
    find_participants,
    require_container_free,
    require_none_is_being_connected,
)
from migrrdma_runtime.agent.roles.records import SourceData, SourceRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.telling import is_meant, tell_until_all_know
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.agent.roles.timeline import Timeline
from migrrdma_runtime.base.errors import (
    AgentError,
    BusyError,
    CheckpointError,
    GuestError,
    MigrRDMAError,
    StoreError,
)
from migrrdma_runtime.wire import dump_outcome, tokens
from migrrdma_runtime.wire.agent_messages import Contact, Message

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MoveStep:
    """Of which move a checkpoint is a step, as whoever conducts it says (``mover/departure.py``)."""

    move: str
    destination: str
    """The name of the agent that may restore it."""


class Source:
    """The agent in the source's role."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._store = agent.store
        self._deadlines = agent.config.deadlines

    async def checkpoint(
        self, container: str, leave_running: bool, runtime: Runtime, step: MoveStep | None = None
    ) -> Message:
        """Quiesce a container's RDMA, have the runtime dump it, keep its place for whoever restores it.

        While the container or a partner takes part in another migration it waits for its turn.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + self._deadlines.turn
        while True:
            try:
                return await self._checkpoint_now(container, leave_running, runtime, step)
            except BusyError as error:
                # It has been undone, so that the other one can go on.
                if runtime.has_ended:
                    raise
                if clock() + self._deadlines.ask > end:
                    raise BusyError(f"{error} (waited {self._deadlines.turn:g} s for it)") from error
                # Nobody tells when a migration of another host has ended.
                with runtime.step("waiting for another migration"):
                    await asyncio.sleep(self._deadlines.ask)

    async def _checkpoint_now(
        self, container: str, leave_running: bool, runtime: Runtime, step: MoveStep | None
    ) -> Message:
        # Nothing is touched before all that can be refused was.
        movers = await find_movers(self._agent, container)
        if not movers and step is None:
            return {"rdma": False}
        participants = await find_participants(self._agent, movers)
        by = await called(self._agent, movers)
        token = tokens.new_token()
        # Another checkpoint of it may have come this far as well.
        require_container_free(self._agent, container)
        require_none_is_being_connected(self._agent, movers, by.names)
        record = self._begin(container, leave_running, participants, token, runtime, by, step)
        with self._agent.tasks.conducting(record.id):
            await self._suspend_and_drain(record, participants, token, runtime)
        return await self._after_dump(record, runtime)

    async def _suspend_and_drain(
        self, record: SourceRecord, participants: Participants, token: str, runtime: Runtime
    ) -> None:
        """Everything up to the dump; undone if any of it fails."""
        timeline = Timeline(self._agent.identity.name)
        try:
            with timeline.step("suspend"), runtime.step("suspending partners"):
                # From now on who asks hears of it. Nothing is lent any more while this is under way.
                await self._agent.asked_for.leases_end()
                await self._suspend(record, participants, token)
            with timeline.step("drain"), runtime.step("draining both ends"):
                await self._drain(record, participants)
            await self._park(participants.movers)
            document = await describe(self._agent, record, participants, token)
            await self._hang_up(participants.movers)
            self._agent.fault_point("source: dumping")
            self._store.move(record, State.DUMPING, timeline=timeline.steps)
            runtime.ready(
                record.id, document, self._outcome_file(record), str(self._agent.config.kept / record.id)
            )
        except Exception as error:  # not CancelledError: an agent that is stopped leaves everything as it is
            await self._undo(record, str(error), timeline)
            raise

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
            self._park_durably(record, timeline)
        else:
            reason = "the container goes on running" if verdict.succeeded else "the runtime could not dump it"
            await self._undo(record, reason, timeline)
        if verdict.died:
            raise CheckpointError(f"the runtime ended during the dump of container {record.data.container}")
        return self.result(record)

    def result(self, record: SourceRecord) -> Message:
        """What the runtime is told of a dump; ``parked``: the application is in the image, and nowhere else."""
        return {
            "rdma": True,
            "migration": record.id,
            "timeline": record.data.timeline,
            "parked": record.state is not State.UNDONE,
        }

    def _park_durably(self, record: SourceRecord, timeline: Timeline) -> None:
        """Write PARKED, as soon as there is room: the application has ended, so there is nothing else to be done."""
        try:
            self._store.move(record, State.PARKED, timeline=timeline.steps)
        except StoreError:
            self._agent.tasks.follow(record.id, self._park_in_the_end(record, timeline))
            raise
        self._after_parking(record)

    async def _park_in_the_end(self, record: SourceRecord, timeline: Timeline) -> None:
        while record.state is State.DUMPING:
            await asyncio.sleep(self._deadlines.ask)
            try:
                self._store.move(record, State.PARKED, timeline=timeline.steps)
            except StoreError as error:
                _log.error("the dump of migration %s succeeded, but %s", record.id, error)
            else:
                self._after_parking(record)

    def _after_parking(self, record: SourceRecord) -> None:
        dump_outcome.remove(self._outcome_file(record))
        self._agent.tasks.follow(record.id, tell_that_it_waits(self._agent, record))

    def _outcome_file(self, record: SourceRecord) -> str:
        """Where the runtime says that the dump has succeeded, whether or not there is an agent to hear it."""
        return str(self._agent.config.outcomes / record.id)

    async def examine(self, container: str) -> Message:
        """What would refuse a checkpoint now, and which guest libraries are at work in the container."""
        obstacles: list[str] = []
        movers: list[Mover] = []
        try:
            movers = await find_movers(self._agent, container)
            await find_participants(self._agent, movers)
        except AgentError as error:
            obstacles.append(str(error))
        return {"obstacles": obstacles, "build_ids": sorted({one.guest.build_id for one in movers})}

    def has_parked(self, process: ProcessId) -> bool:
        """Whether a process was parked to be dumped, and has not gone on: it has no connection to the agent then."""
        return any(
            process in one.data.processes
            for one in self._store.all(SourceData)
            if not one.is_final and one.state is not State.SUSPENDING
        )

    def of_move(self, move: str) -> SourceRecord | None:
        """The last checkpoint that was a step of it."""
        return next((one for one in reversed(self._store.all(SourceData)) if one.data.move == move), None)

    def recover(self, api: RuntimeApi) -> None:
        """After a start: undo what was begun, wait on where a dump is under way."""
        for outcome in self._agent.config.outcomes.iterdir():
            known = self._store.find(outcome.name, SourceData)
            if known is None or known.state is not State.DUMPING:
                dump_outcome.remove(str(outcome))
        for record in self._store.all(SourceData):
            if record.state is State.SUSPENDING:
                self._agent.tasks.decide(record.id, self._undo(record, "the agent was restarted"))
            elif record.state is State.DUMPING:
                runtime = api.runtime_of(record.data.runtime)
                api.expect(
                    record.id, record.data.runtime
                )  # from now on: its report may come before we wait for it
                self._agent.tasks.decide(record.id, self._conclude(record, runtime))
            elif record.state in (State.PARKED, State.CLAIMED):
                self._agent.tasks.follow(record.id, tell_that_it_waits(self._agent, record))
            elif record.state is State.UNDONE:
                for name in record.data.pending:
                    self._agent.guests.ask_to_connect(record.data.container, name)
                self._agent.tasks.follow(record.id, tell_until_all_know(self._agent, record, self.settle))

    async def settle(self, guest: Guest, record: SourceRecord) -> None:
        """Have a guest go on that was not there when its migration was undone."""
        async with self._agent.lock(f"{record.id} {guest.name}"):
            pending = record.data.pending
            if (
                record.state is State.UNDONE
                and guest.name in pending
                and is_meant(self._agent, record, guest)
            ):
                await guest.undo(self._deadlines.guest)
                self._agent.guests.stop_asking(guest.container, guest.name)
                self._store.remember(record, pending=_without(guest.name, record))

    def _begin(
        self,
        container: str,
        leave_running: bool,
        participants: Participants,
        token: str,
        runtime: Runtime,
        by: Called,
        step: MoveStep | None,
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
                partners=[one.contact for one in participants.partners],
                runtime=runtime.process,
                boot=self._agent.containers.boot,
                names=by.names,
                qpns=by.qpns,
                unproven=by.unproven,
                move=step.move if step else "",
                only_for=step.destination if step else "",
            ),
        )

    async def _suspend(self, record: SourceRecord, participants: Participants, token: str) -> None:
        """Have every partner's agent find the other ends and take part, before anything is quiesced."""

        async def suspend(partner: PartnerAgent) -> list[str]:
            self._agent.fault_point(f"source: suspend {partner.contact.name}")
            request = {
                "migration": record.id,
                "source": self._agent.contact.as_message(),
                "key_digest": tokens.digest(tokens.key_for(token, partner.contact.name)),
                "connections": [
                    {"gid": pair.dgid, "qpn": pair.dest_pqpn, "peer_gid": pair.sgid, "peer_qpn": pair.pqpn}
                    for _, pair in partner.connections
                ],
                "datagrams": [
                    {name: one[name] for name in ("vgid", "vqpn", "gid", "qpn")}
                    for one in participants.datagrams
                ],
            }
            limit = self._deadlines.peer + self._deadlines.guest  # it asks all of its guests
            answer = await self._agent.ask(partner.contact, "suspend", request, limit)
            processes: list[str] = answer["processes"]
            return processes

        named = await wait_for_all(*(suspend(partner) for partner in participants.partners))
        # Where datagrams were sent to, and nobody sends any to here: it takes no part.
        answers = zip(participants.partners, named, strict=True)
        part = [partner for partner, processes in answers if partner.connections or processes]
        if len(part) < len(named):
            participants.partners = part
            self._store.note(record, partners=[one.contact for one in part])
        _require_distinct([*record.data.guests, *chain.from_iterable(named)])

    async def _drain(self, record: SourceRecord, participants: Participants) -> None:
        """Quiesce both ends at once: neither drains without the other's receives."""
        seconds, margin = self._deadlines.drain, self._deadlines.guest
        request = {"migration": record.id, "seconds": seconds}
        limit = seconds + margin + self._deadlines.peer
        self._agent.fault_point("source: drain")
        await wait_for_all(
            *(self._agent.ask(partner.contact, "drain", request, limit) for partner in participants.partners),
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
            self._agent.guests.stop_asking(one.guest.container, one.guest.name)
        await wait_for_all(*(one.guest.hang_up(self._deadlines.guest) for one in movers))

    async def _verdict(self, record: SourceRecord, runtime: Runtime) -> Verdict:
        """How the dump went, by the runtime's word or else by what it has left behind."""
        # An agent of before this was kept wrote no boot; it had a dump under way when it was replaced by this one.
        same_boot = record.data.boot in ("", self._agent.containers.boot)
        if same_boot:
            verdict = await runtime.verdict(record.id)
            if verdict.succeeded:
                return verdict
        else:
            verdict = Verdict(
                succeeded=False, died=True
            )  # and so did the processes: their end proves nothing
        steps = dump_outcome.read(self._outcome_file(record))
        if steps is not None:
            return Verdict(succeeded=True, steps=steps)
        if not same_boot:
            _log.warning("migration %s: the host was started anew during the dump", record.id)
            return verdict
        # CRIU ends what it has dumped as the very last thing. Also where somebody reports that the dump failed: what
        # came after CRIU may have.
        alive = any(self._agent.containers.is_alive(one) for one in record.data.processes)
        _log.warning(
            "the runtime %s the dump; the container %s",
            "ended during" if verdict.died else "reports a failure of",
            "lives" if alive else "is gone",
        )
        return replace(verdict, succeeded=not alive)

    async def _conclude(self, record: SourceRecord, runtime: Runtime) -> None:
        """Go on with a checkpoint that another agent process began."""
        try:
            runtime.finished(await self._after_dump(record, runtime))
        except MigrRDMAError as error:
            runtime.failed(error)

    async def _undo(self, record: SourceRecord, reason: str, timeline: Timeline | None = None) -> None:
        """Undo a checkpoint: both ends go on, on the connections they have."""
        steps = timeline.steps if timeline else record.data.timeline
        # Whoever reads an older state from a full disk will undo it again, which does no harm.
        self._store.accept(record, State.UNDONE, pending=record.data.guests, reason=reason, timeline=steps)
        await self.go_on(record)

    async def go_on(self, record: SourceRecord) -> None:
        """Have both ends of what is undone go on; who is frozen does when whoever conducts its move has let it."""
        await wait_for_all(
            *(self._undo_at_partner(record, partner) for partner in record.data.partners),
            *(self._undo_at_guest(record, name) for name in record.data.guests),
        )
        self._agent.tasks.follow(record.id, tell_until_all_know(self._agent, record, self.settle))

    async def _undo_at_partner(self, record: SourceRecord, partner: Contact) -> None:
        try:
            limit = self._deadlines.peer + self._deadlines.guest
            await self._agent.ask(partner, "undo", {"migration": record.id}, limit)
        except AgentError as error:
            _log.warning("%s; it will ask", error)

    async def _undo_at_guest(self, record: SourceRecord, name: str) -> None:
        self._agent.guests.ask_to_connect(record.data.container, name)
        try:
            [guest] = await self._agent.guests.wait_for(record.data.container, [name], self._deadlines.guest)
            await self.settle(guest, record)
        except AgentError as error:
            _log.warning("%s; it is told to go on until it has", error)


def _require_distinct(names: list[str]) -> None:
    """Refuse two processes of one name: it says who is still to be told of the end, and whose remote keys are whose.

    A process chooses its own, and one that has faced another knows that one's.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise GuestError(
            f"several processes that take part are called {twice[0]}: one has the name of another, which only a guest "
            "library that is not ours takes; end the container that it is in"
        )


def _without(name: str, record: SourceRecord) -> list[str]:
    return [one for one in record.data.pending if one != name]
