"""A restore, as its host's agent conducts it.

:meth:`Destination.restore` is the protocol; the rest are its steps.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.runtime_api import Runtime, RuntimeApi, Verdict
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.roles.delays import Delays
from migrrdma_runtime.agent.roles.fit import find_devices
from migrrdma_runtime.agent.roles.reconnection import Reconnection
from migrrdma_runtime.agent.roles.records import DestinationData, DestinationRecord, SwitchedPartner
from migrrdma_runtime.agent.roles.standing import Standing, require_success
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.telling import is_meant, tell_until_all_know
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.agent.roles.timeline import Timeline
from migrrdma_runtime.base.errors import (
    AgentError,
    MigrRDMAError,
    RefusedError,
    RestoreError,
    StaleRecordError,
    StoreError,
    UnreachableError,
)
from migrrdma_runtime.wire import manifest_schema, tokens
from migrrdma_runtime.wire.agent_messages import UNKNOWN, Contact, Message, Step

_log = logging.getLogger(__name__)

T = TypeVar("T")

_CONFIRMED_AT_ONCE = 256
"""Partners that are asked together whether they still wait. They are as many as a checkpoint from elsewhere says, up to
65,536, and each is a connection of its own; the first of them that is not there ends it."""


@dataclass(frozen=True)
class _Held:
    """What the last agent's CRIU still holds, and the runtime that waits for it."""

    standing: Standing
    runtime: Runtime


class Destination:
    """The agent in the destination's role."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._store = agent.store
        self._deadlines = agent.config.deadlines
        self._standing: dict[str, Standing] = {}
        agent.handlers["holding"] = self.holding

    async def restore(self, container: str, document: Message, runtime: Runtime) -> Message:
        """Restore a container's RDMA from its manifest, around the runtime's restore of everything else."""
        timeline = Timeline(self._agent.identity.name)
        # Nothing is claimed before it could be restored. In a thread: see checkpoint_document.py.
        devices = await asyncio.to_thread(find_devices, self._agent, manifest_schema.validate(document))
        record = self._begin(container, document, runtime)
        reconnection = Reconnection(self._agent, document)
        before: list[Step] = []
        standing = self._standing[record.id] = Standing()
        report: asyncio.Future[Verdict] | None = None
        try:
            with timeline.step("claim"), runtime.step("claiming the checkpoint"):
                before = await self._claim(record)
                await self._confirm(record)
            runtime.ready(record.id, None)
            report = asyncio.ensure_future(runtime.verdict(record.id))
            with timeline.step("restore"):
                await self._restored(report, standing)
            with timeline.step("reconnect"), runtime.step("waiting for the processes"):
                guests = await self._while_restored(report, self._guests(record, document))
            with timeline.step("rebuild"), runtime.step("rebuilding"):
                await self._while_restored(report, reconnection.rebuild(guests, devices))
            with timeline.step("connect"), runtime.step("connecting"):
                await self._while_restored(report, reconnection.prepare(record))
                await self._while_restored(report, reconnection.connect())
                record.data.lost = reconnection.lost  # on the disk with the next state
            stood = standing.is_held
            with timeline.step("commit"):
                await self._commit(record, standing)
                await self._let_go(record, report, standing)
            how = (
                "before its first instruction" if stood else "after it has gone on, with its verbs held back"
            )
            _log.info("migration %s: the container is committed %s", record.id, how)
        except Exception as error:  # not CancelledError: an agent that is stopped leaves everything as it is
            await self._give_back(record, str(error), [*before, *timeline.steps])
            runtime.released = True
            standing.refuse(error)
            self._forget(record, standing)
            raise
        finally:
            if report is not None and record.state is not State.COMMITTED:
                report.cancel()
        # ═══ Committed, and let go: this host is the authority. Nothing below is undone; what fails is tried again.
        try:
            with timeline.step("switch"), runtime.step("switching the partners"):
                blackouts = await self._go(record)
            # Of one that stood until now the runtime has only begun to hear.
            timeline.add_all((await report).steps)
        finally:
            self._forget(record, standing)
        steps = [*before, *timeline.steps]
        self._store.remember(record, timeline=steps, blackouts=blackouts, downtime=_downtime(steps, stood))
        return self.result(record)

    def result(self, record: DestinationRecord) -> Message:
        """What the runtime is told of a restore that has been committed."""
        steps = record.data.timeline
        return {
            "rdma": True,
            "migration": record.id,
            "timeline": steps,
            "blackout": record.data.blackouts,
            "downtime": record.data.downtime or 0.0,
            "lost": record.data.lost,
        }

    async def hold(self, migration: str, holder: Runtime) -> bool:
        """Have CRIU's plugin hold what is restored until it is decided; False: no restore of that name is under way."""
        standing = self._standing.get(migration)
        if standing is not None:
            record = self._store.find(migration, DestinationData)
            if record is not None and record.data.criu != holder.process:
                self._store.note(record, criu=holder.process)
            await standing.decision(holder)
        return standing is not None

    def let_go(self, migration: str, holder: Runtime) -> None:
        """Have CRIU's plugin let go what it holds, if that has not been given back; after this it is not."""
        record, standing = self._store.find(migration, DestinationData), self._standing.get(migration)
        if record is None or record.state not in (State.COMMITTED, State.DONE):
            holder.released = record is not None and record.state is State.RELEASED
            raise AgentError(
                f"the restore of migration {migration} is not committed: what was restored must not run"
            )
        if standing is not None:
            standing.let_go(holder)
        if not record.data.let_go:
            self._store.remember(record, let_go=True)

    def gone_on(self, migration: str, succeeded: bool) -> None:
        """Take note of what has become of what CRIU's plugin has let go."""
        standing = self._standing.get(migration)
        if standing is not None:
            standing.gone_on(succeeded)

    async def holding(self, _caller: Identity, request: Message) -> Message:
        """How it stands with a claim, to whoever has heard nothing."""
        record, epoch = self._store.find(request["migration"], DestinationData), request["epoch"]
        if record is not None and (epoch < record.data.epoch or epoch <= record.data.given_back):
            return {"state": State.RELEASED.value}
        if record is None or epoch > record.data.epoch:
            return {"state": UNKNOWN}
        if record.state is State.COMMITTED and self._is_held(record):
            return {"state": State.COMMITTING.value}  # it may still be given back
        return {"state": record.state.value}

    async def abandon(self, migration: str, lost: bool) -> None:
        """Give a restore up for a person who says so; ``lost``: wait no more for agents of hosts that are gone."""
        record = self._store.find(migration, DestinationData)
        if record is None:
            raise RefusedError(f"{self._agent.identity.name} restores no migration {migration}")
        if record.state in (State.RESTORING, State.COMMITTING):
            await self._give_back(record, "given up by a person")
        elif not lost:
            raise RefusedError(
                f"migration {migration} is {record.state.value} here: what is restored is not given up; "
                "--lost has it wait no more for hosts that are lost for good"
            )
        elif record.state is State.COMMITTED:
            for one in record.data.partners:  # _go_on waits for these members
                one.switched = True
        else:
            self._store.remember(record, told=True)

    def recover(self, api: RuntimeApi) -> None:
        """After a start: give back what was begun, learn what is in doubt, finish what is decided."""
        for record in self._store.all(DestinationData):
            if record.state is State.RESTORING:
                self._agent.tasks.decide(record.id, self._give_back(record, "the agent was restarted"))
            elif record.state is State.COMMITTING:
                self._ask_guests_to_connect(record)
                self._agent.tasks.decide(record.id, self._resolve(record, self._still_held(record, api)))
            elif record.state is State.COMMITTED:
                for name in record.data.pending:
                    self._agent.guests.ask_to_connect(record.data.container, name)
                if held := self._still_held(record, api):
                    self._agent.tasks.decide(record.id, self._resolve(record, held))
                else:
                    self._agent.tasks.follow(record.id, self._go_on(record))
            elif record.state is State.RELEASED and not record.data.is_told:
                self._agent.tasks.follow(record.id, self._return_claim(record))
            elif record.state is State.DONE and not record.data.is_told:
                self._agent.tasks.follow(record.id, self._tell_the_source(record))

    async def settle(self, guest: Guest, record: DestinationRecord) -> None:
        """Have a guest go on that was not there when its migration was committed."""
        async with self._agent.lock(f"{record.id} {guest.name}"):
            pending = record.data.pending
            goes_on = record.state in (State.COMMITTED, State.DONE) and not self._is_held(record)
            if goes_on and guest.name in pending and is_meant(self._agent, record, guest):
                await guest.resume(self._deadlines.guest)
                self._agent.guests.stop_asking(guest.container, guest.name)
                left = [one for one in record.data.pending if one != guest.name]
                self._store.remember(record, pending=left)

    # --- the steps --------------------------------------------------------------------------------------

    def _begin(self, container: str, document: Message, runtime: Runtime) -> DestinationRecord:
        token = document["token"]
        former = self._store.find(document["migration"], DestinationData)
        given_back = 0
        if former is not None:
            if former.state is State.DONE:
                # Its record stays: by it alone its runtime, if it has not heard the answer, learns that it may go on.
                raise RefusedError(
                    f"migration {former.id} was restored here already, as container {former.data.container:.12}"
                )
            given_back = former.data.given_back
            if former.state is State.RELEASED:
                given_back = max(given_back, former.data.epoch)
        data = DestinationData(
            container=container,
            source=Contact(**document["source"]),
            source_key=tokens.key_for(token, document["source"]["name"]),
            attempt=secrets.token_hex(8),
            partners=[
                SwitchedPartner(one["name"], one["address"], tokens.key_for(token, one["name"]))
                for one in document["partners"]
            ],
            guests=[one["process"] for one in document["guests"]],
            names={one["process"]: one["names"] for one in document["guests"]},
            qpns={one["process"]: one["qpns"] for one in document["guests"]},
            runtime=runtime.process,
            given_back=given_back,
        )
        return self._store.begin(document["migration"], data)

    async def _claim(self, record: DestinationRecord) -> list[Step]:
        """Have the source's agent grant the restore to this host, and to no other."""
        self._agent.fault_point("destination: claim")
        request = {
            "migration": record.id,
            "key": record.data.source_key,
            "attempt": record.data.attempt,
            "destination": self._agent.contact.as_message(),
        }
        # It may first have to ask the holder of an earlier claim.
        answer = await self._agent.ask(record.data.source, "claim", request, 3 * self._deadlines.peer)
        self._store.note(record, epoch=answer["epoch"])
        timeline: list[Step] = answer["timeline"]
        return timeline

    async def _confirm(self, record: DestinationRecord) -> None:
        """See that every partner still waits: better now than when the container runs."""
        self._agent.fault_point("destination: confirm")

        async def confirm(partner: SwitchedPartner) -> None:
            request = record.data.show_claim(record.id, partner.key)
            # It asks the source whose the claim is; if it has just been restarted, it gives its guests time to connect.
            limit = 2 * self._deadlines.peer + self._deadlines.guest
            await self._agent.ask(partner.contact, "confirm", request, limit)

        partners = record.data.partners
        for at in range(0, len(partners), _CONFIRMED_AT_ONCE):
            await wait_for_all(*(confirm(one) for one in partners[at : at + _CONFIRMED_AT_ONCE]))

    async def _restored(self, report: asyncio.Future[Verdict], standing: Standing) -> None:
        """Wait until the runtime has restored everything else, or CRIU's plugin holds it before its first step."""
        stands = asyncio.ensure_future(standing.arrived.wait())
        try:
            await asyncio.wait((report, stands), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stands.cancel()
        self._agent.fault_point("destination: restored")
        if report.done():
            require_success(report.result())

    @staticmethod
    async def _while_restored(report: asyncio.Future[Verdict], step: Coroutine[Any, Any, T]) -> T:
        """Do a step, unless the runtime says meanwhile that what CRIU's plugin holds has ended, or ends itself.

        An engine removes what was restored by a runtime that has failed.
        """
        task = asyncio.ensure_future(step)
        waited_for: set[asyncio.Future[Any]] = {task} if report.done() else {task, report}
        try:
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                require_success(report.result())
            return await task
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _guests(self, record: DestinationRecord, document: Message) -> list[Guest]:
        """The restored processes, once all have connected; where they are is what the kernel says."""
        self._ask_guests_to_connect(record)
        names = [one["process"] for one in document["guests"]]
        guests = await self._agent.guests.wait_for(record.data.container, names, self._deadlines.reconnect)
        self._store.note(
            record, processes=[self._agent.containers.identify(one.process.pid) for one in guests]
        )
        return guests

    def _ask_guests_to_connect(self, record: DestinationRecord) -> None:
        for name in record.data.guests:
            self._agent.guests.ask_to_connect(record.data.container, name)

    async def _commit(self, record: DestinationRecord, standing: Standing) -> None:
        """Ask the source's agent for the authority until it has answered; until then nothing is begun."""
        self._agent.fault_point("destination: commit")
        standing.committing()
        self._store.move(record, State.COMMITTING)
        deadline = time.monotonic() + self._deadlines.doubt
        while True:
            try:
                await self._ask_source(record, "commit")
                break
            except UnreachableError as error:
                if time.monotonic() > deadline:
                    raise RestoreError(
                        f"whether the commit was accepted could not be learnt within "
                        f"{self._deadlines.doubt:g} s ({error}); the checkpoint is given back and can be "
                        "restored again"
                    ) from error
            await asyncio.sleep(self._deadlines.ask)
        self._agent.fault_point("destination: committed")
        self._learn_of_the_commit(record)

    async def _let_go(
        self, record: DestinationRecord, report: asyncio.Future[Verdict], standing: Standing
    ) -> None:
        """Let what CRIU's plugin holds go on: until it has, nothing has run, and the authority can be given back."""
        containers, processes = self._agent.containers, record.data.processes
        await standing.release(
            report, lambda: any(containers.goes_on(one) for one in processes), self._deadlines.reconnect
        )

    def _is_held(self, record: DestinationRecord) -> bool:
        """Whether nothing of it runs yet: what is committed may still be given back."""
        standing = self._standing.get(record.id)
        return standing is not None and standing.is_held

    def _forget(self, record: DestinationRecord, standing: Standing) -> None:
        # By now it may be the next attempt's: this one gave its claim back before it told everybody of it.
        if self._standing.get(record.id) is standing:
            del self._standing[record.id]

    def _learn_of_the_commit(self, record: DestinationRecord) -> None:
        """Be the authority. With COMMITTING still on a full disk, a restart would ask and hear the same again."""
        self._store.accept(record, State.COMMITTED, pending=record.data.guests)

    async def _go(self, record: DestinationRecord) -> dict[str, float]:
        """Switch the partners and let our own processes go on. Who cannot be reached now is told later."""
        self._agent.fault_point("destination: switch")

        async def resume(name: str) -> None:
            guest = self._agent.guests.find(record.data.container, name)
            if guest is not None:
                await self.settle(guest, record)

        # The partners first: their new queue pairs have no receives posted before they have switched.
        switched = await self._switch_all(record)
        resumed = await asyncio.gather(*(resume(name) for name in record.data.guests), return_exceptions=True)
        for error in (*switched, *resumed):
            if isinstance(error, MigrRDMAError):
                _log.warning("after the commit of migration %s: %s", record.id, error)
            elif isinstance(error, BaseException):
                raise error
        self._agent.tasks.follow(record.id, self._go_on(record))
        return {one.name: one.blackout for one in record.data.partners if one.switched}

    async def _switch_all(self, record: DestinationRecord) -> list[BaseException | None]:
        """Switch all partners at once; what each of those that have answered said.

        Once one has, the others have ``deadlines.ask`` seconds: by then the one that has not is down or hangs, and the
        application's other connections must not wait for it. It is asked again until it is there.
        """
        under_way = {asyncio.ensure_future(self._switch(record, one)) for one in record.data.partners}
        answered: set[asyncio.Task[None]] = set()
        try:
            if under_way:
                answered, rest = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                if rest:
                    answered |= (await asyncio.wait(rest, timeout=self._deadlines.ask))[0]
            return [one.exception() for one in answered]
        finally:
            for one in under_way:
                one.cancel()

    async def _switch(self, record: DestinationRecord, partner: SwitchedPartner) -> None:
        limit = self._deadlines.peer + self._deadlines.guest
        answer = await self._agent.ask(
            partner.contact, "switch", record.data.show_claim(record.id, partner.key), limit
        )
        partner.switched, partner.blackout = True, answer["blackout"]

    async def _finish(self, record: DestinationRecord) -> None:
        """Tell the source's agent that nobody will ask any more; it keeps its record, and the container's name."""
        self._agent.fault_point("destination: finish")
        self._store.accept(record, State.DONE, partners=record.data.partners)
        await self._tell_the_source(record)

    async def _tell_the_source(self, record: DestinationRecord) -> None:
        """Go on telling it until it has heard."""
        delays = Delays(self._agent, record)
        while not record.data.told:
            try:
                await self._ask_source(record, "finish")
            except RefusedError as error:
                _log.info("%s", error)  # it knows nothing of it any more
            except AgentError as error:
                delays.say("source", str(error))  # also one whose disk is full
                await asyncio.sleep(self._deadlines.ask)
                continue
            self._store.remember(record, told=True)

    # --- after the commit, and after a restart -----------------------------------------------------------

    async def _go_on(self, record: DestinationRecord) -> None:
        """Go on telling partners and processes that they may go on, until each has or never can."""
        await asyncio.gather(
            *(self._switch_in_the_end(record, one) for one in record.data.partners),
            tell_until_all_know(self._agent, record, self.settle),
        )
        await self._finish(record)

    async def _switch_in_the_end(self, record: DestinationRecord, partner: SwitchedPartner) -> None:
        delays = Delays(self._agent, record)
        while not partner.switched:
            try:
                await self._switch(record, partner)
            except RefusedError as error:
                _log.error("partner %s is lost: %s", partner.name, error)
                partner.switched = True
            except AgentError as error:
                delays.say(partner.name, str(error))
                await asyncio.sleep(self._deadlines.ask)

    def _still_held(self, record: DestinationRecord, api: RuntimeApi) -> _Held | None:
        """What the last agent had CRIU's plugin hold, which asks anew; None: nothing, or it goes on."""
        criu, let_go, containers = record.data.criu, record.data.let_go, self._agent.containers
        if criu is None:
            return None
        # It may have let them go without a yes: after ten minutes, or if the disk had no room for that it was said.
        goes_on = let_go or any(containers.goes_on(one) for one in record.data.processes)
        if goes_on and not containers.is_alive(criu):
            return None
        standing = self._standing[record.id] = Standing(api.runtime_of(criu), let_go=let_go)
        api.expect(record.id, record.data.runtime)  # its report may come before we wait for it
        return _Held(standing, api.runtime_of(record.data.runtime))

    async def _resolve(self, record: DestinationRecord, held: _Held | None) -> None:
        """Learn what became of a commit that was asked for before this agent started, and act on it."""
        if held is None:
            await self._learn(record)
            if record.state is State.COMMITTED:
                await self._go(record)
            return
        report = asyncio.ensure_future(held.runtime.verdict(record.id))
        self._agent.tasks.follow(record.id, self._answer_in_the_end(record, held.runtime, report))
        try:
            await self._learn(record)
            if record.state is not State.COMMITTED:
                held.standing.refuse(RestoreError(record.data.reason))
                return
            try:
                await self._let_go(record, report, held.standing)
            except RestoreError as error:
                await self._give_back(record, str(error))
                held.standing.refuse(error)
                return
        finally:
            self._forget(record, held.standing)
        await self._go(record)

    async def _answer_in_the_end(
        self, record: DestinationRecord, runtime: Runtime, report: asyncio.Future[Verdict]
    ) -> None:
        """Answer a runtime that has told its report to this agent and its wish to the last one."""
        if (await report).died:
            return
        await self._agent.tasks.decided(record.id)
        if record.state in (State.COMMITTED, State.DONE):
            runtime.finished(self.result(record))
            return
        runtime.released = record.state is State.RELEASED
        runtime.failed(RestoreError(f"migration {record.id} was not committed: {record.data.reason}"))

    async def _learn(self, record: DestinationRecord) -> None:
        delays = Delays(self._agent, record)
        while record.state is State.COMMITTING:
            try:
                await self._ask_source(record, "commit")
            except UnreachableError as error:
                delays.say("source", f"it is in doubt, since {error}")
                await asyncio.sleep(self._deadlines.ask)
            except AgentError as error:
                await self._give_back(record, str(error))
                return
            else:
                self._learn_of_the_commit(record)

    async def _give_back(
        self, record: DestinationRecord, reason: str, timeline: list[Step] | None = None
    ) -> None:
        """Never act on the claim again, and say so. Once this returns the runtime may kill what it has restored."""
        if record.is_final:
            return
        for name in record.data.guests:
            self._agent.guests.stop_asking(record.data.container, name)
        if record.state in (State.COMMITTING, State.COMMITTED):
            await self._release_durably(record, reason=reason, timeline=timeline or [], pending=[])
        else:  # a restart would give it back again
            self._store.accept(record, State.RELEASED, reason=reason, timeline=timeline or [])
        # At once: each that cannot be reached would keep those behind it from their application.
        partners = record.data.partners if record.data.epoch else []
        await wait_for_all(*(self._retract(record, partner) for partner in partners))
        try:
            await self._release(record)
        except StaleRecordError as error:
            _log.info("%s", error)  # given back it is: the next attempt could not have begun before
        except AgentError as error:
            _log.info("%s; it is told again later", error)
            self._agent.tasks.follow(record.id, self._return_claim(record))

    async def _retract(self, record: DestinationRecord, partner: SwitchedPartner) -> None:
        try:
            await self._agent.ask(partner.contact, "retract", record.data.show_claim(record.id, partner.key))
        except AgentError as error:
            _log.info("%s; it will ask", error)

    async def _release_durably(self, record: DestinationRecord, **changes: Any) -> None:
        """Write RELEASED, as soon as there is room.

        The commit may have been accepted. A restart that found COMMITTING or COMMITTED on the disk would then be the
        authority over an application that had been killed by then.
        """
        while True:
            try:
                self._store.move(record, State.RELEASED, **changes)
            except StoreError as error:
                _log.error("migration %s cannot be given back (%s): %s", record.id, changes["reason"], error)
                await asyncio.sleep(self._deadlines.ask)
            else:
                return

    async def _return_claim(self, record: DestinationRecord) -> None:
        """Go on telling the source's agent that its claim is free."""
        while record.state is State.RELEASED and not record.data.told:
            await asyncio.sleep(self._deadlines.ask)
            try:
                await self._release(record)
            except StaleRecordError as error:
                _log.info("%s", error)  # its successor knows which claims were given back
                return
            except AgentError:
                continue

    async def _release(self, record: DestinationRecord) -> None:
        try:
            if record.data.epoch:
                await self._ask_source(record, "release")
        except RefusedError as error:
            _log.info("%s", error)  # it knows nothing of the claim: then it is free
        self._store.remember(record, told=True)

    async def _ask_source(self, record: DestinationRecord, name: str) -> None:
        await self._agent.ask(
            record.data.source, name, record.data.show_claim(record.id, record.data.source_key)
        )


def _downtime(steps: list[Step], stood: bool) -> float:
    """From the dump's begin until the processes go on; across hosts it is as good as their clocks are.

    They do when the runtime has returned, or, if they stood until then, when it is committed.
    """
    starts = [one["start"] for one in steps if one["name"] == "dump"]
    last = "commit" if stood else "restore"
    ends = [one["start"] + one["seconds"] for one in steps if one["name"] == last]
    return max(0.0, ends[-1] - starts[0]) if starts and ends else 0.0
