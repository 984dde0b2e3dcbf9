"""The other end of a connection that moves: suspend, drain, wait; then prepare and switch, or go back.

Every change of state is durable before anything is done about it, and what is to be done follows from the
state alone (:meth:`Partner.settle`): so it does not matter at which point this agent, a guest or a message
was lost. A partner that hears nothing asks both ends, and gives up after a deadline; ``states.py`` says in
which direction.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

from migrrdma_runtime.agent.local.guest import Guest, place_records
from migrrdma_runtime.agent.local.guest_objects import GuestState
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.roles import outlook
from migrrdma_runtime.agent.roles.partner_guests import (
    Prepared,
    connected_guest,
    describe_owner,
    find_hearers,
    find_owners,
    living_guest,
    names_of,
    prepare_guest,
    require_free,
)
from migrrdma_runtime.agent.roles.records import PartnerData, PartnerGuest, PartnerRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.telling import is_meant, tell_until_all_know
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, boot_clock, wait_for_all
from migrrdma_runtime.base.errors import (
    AgentError,
    AllowanceError,
    BusyError,
    GuestError,
    MessageError,
    RefusedError,
)
from migrrdma_runtime.wire import agent_messages, remote_keys, tokens
from migrrdma_runtime.wire.agent_messages import GENERATION_CLAIMS, UNKNOWN, Contact, Message

_log = logging.getLogger(__name__)

_MOST_OPEN = 1 << 16
"""Queue pairs for datagrams of the containers of one source of which anybody here waits to hear."""

_MOST_ENDED = 1000
"""Records of what has ended that are kept of one source. They are for people, and it makes as many as it likes."""

_NO_LISTS: dict[str, Any] = {"datagrams": [], "places": [], "prepared": []}
"""What is long in a record, and of no use when it has ended."""

_OVER = (State.COMMITTED.value, State.DONE.value)
_NOT_MINE = (State.RELEASED.value, UNKNOWN)


class Partner:
    """The agent in a partner's role."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._store = agent.store
        self._deadlines = agent.config.deadlines
        self._heard: dict[str, float] = {}
        """When there was a word on a migration last, by :func:`boot_clock`; for an agent that has been restarted, its
        own start."""
        self._places: tuple[list[Message], list[Message]] = [], []
        """What was told last of places, and as guests are told it: once for all of them."""
        agent.handlers |= {
            "suspend": self.suspend,
            "drain": self.drain,
            "undo": self.undo,
            "confirm": self.confirm,
            "prepare": self.prepare,
            "retract": self.retract,
            "switch": self.switch,
        }

    # --- what the source asks ---------------------------------------------------------------------------

    async def suspend(self, caller: Identity, request: Message) -> Message:
        """Take part in a migration: find whose queue pairs these are, and wait from now on."""
        agent, source = self._agent, Contact(**request["source"])
        agent.require_is(caller, source)
        for one in request["connections"]:
            agent.require_speaks_for(caller, one["peer_gid"], source.address)
        for one in request["datagrams"]:
            agent.require_speaks_for(caller, one["gid"], source.address)
        agent.fault_point("partner: suspend")
        async with agent.lock(request["migration"]):
            # Its name is known to all of its partners, and a new record takes the place of one that is final.
            former = self._store.find(request["migration"], PartnerData)
            if former is not None:
                self._require_source(caller, former)
            try:
                owners = await find_owners(self._agent, request["connections"])
            except GuestError:
                if not await agent.guests.wait_for_returning_guests():
                    raise
                owners = await find_owners(self._agent, request["connections"])
            hearers = await find_hearers(agent, request["migration"], request["datagrams"])
            known = [guest for guest, _ in owners]
            owners += [(guest, []) for guest in hearers if guest not in known]
            if not owners:
                return {"processes": []}
            await require_free(self._agent, request["migration"], owners)
            self._require_room(source, len(request["datagrams"]))
            record = self._store.begin(
                request["migration"],
                PartnerData(
                    source=source,
                    key_digest=request["key_digest"],
                    boot=agent.containers.boot,
                    suspended=time.time(),
                    guests=[
                        describe_owner(agent, guest, pairs, hears=guest in hearers) for guest, pairs in owners
                    ],
                    datagrams=request["datagrams"],
                ),
            )
        agent.tasks.follow(record.id, self.watch(record))
        return {"processes": [guest.name for guest, _ in owners]}

    def _require_room(self, source: Contact, datagrams: int) -> None:
        """Whether one more migration of that agent may be kept; of those that have ended the oldest make room."""
        mine = [one for one in self._store.all(PartnerData) if one.data.source.name == source.name]
        waiting = sum(len(one.data.datagrams) for one in mine if not one.is_final)
        if datagrams and waiting + datagrams > _MOST_OPEN:
            raise BusyError(
                f"containers of {source.name} with {waiting} queue pairs for datagrams wait already to be restored, of "
                f"which processes on {self._agent.identity.name} are to hear: try again when some of these have been"
            )
        for one in [one for one in mine if one.is_settled][: -_MOST_ENDED + 1]:
            self._store.forget(one)

    async def drain(self, caller: Identity, request: Message) -> Message:
        """Quiesce, within the source's deadline; the queue pairs that did not drain are in the error."""
        record = self._record(request["migration"])
        self._require_source(caller, record)
        if record.state is not State.SUSPENDED:
            raise RefusedError(f"migration {record.id} is {record.state.value} here, not to be drained")
        self._hear(record)
        self._agent.fault_point("partner: drain")
        self._store.note(record, quiesced=time.time(), quiesced_monotonic=time.monotonic())
        wanted = _with_queue_pairs(record)
        guests = await wait_for_all(*(connected_guest(self._agent, one) for one in wanted))
        # As long as the source says, but no longer than this host's administrator would have it wait.
        seconds, margin = min(request["seconds"], self._deadlines.drain), self._deadlines.guest
        # Whatever an agent decides about the wait (watch, below) it decides before the guest does without one.
        alone = self._deadlines.partner + self._deadlines.ask + 3 * self._deadlines.peer
        await wait_for_all(
            *(
                guest.quiesce(names_of(one), seconds, margin, alone)
                for guest, one in zip(guests, wanted, strict=True)
            )
        )
        self._store.note(record, drained=True)
        return {}

    async def undo(self, caller: Identity, request: Message) -> Message:
        """The source goes on: so do its partners, on the connections as they were."""
        record = self._store.find(request["migration"], PartnerData)
        if record is None:
            return {}
        self._require_source(caller, record)
        async with self._agent.lock(record.id):
            self._agent.fault_point("partner: undo")
            if record.state in (State.SUSPENDED, State.PREPARED):
                self._store.move(record, State.UNDONE, **_pending(record))
            elif record.state is State.SWITCHED:
                raise RefusedError(f"migration {record.id} has been switched over here; it cannot be undone")
            await self._settle_all(record)
        return {}

    # --- what the destination asks ----------------------------------------------------------------------

    async def confirm(self, caller: Identity, request: Message) -> Message:
        """Whether a restore would find everything here: asked before the container is started."""
        record = self._record(request["migration"])
        self._require_key(record, request["key"])
        self._require_not_lost(record)
        await self._require_holder(caller, record, request["epoch"])
        self._hear(record)
        self._require_not_lost(record)
        if record.state is State.SWITCHED:
            raise RefusedError(
                f"a partner's agent, {self._agent.identity.name}, has switched migration {record.id} over for claim "
                f"{record.data.epoch} already: it faces what was restored then, or nothing"
            )
        await wait_for_all(*(living_guest(self._agent, one) for one in _with_queue_pairs(record)))
        return {"state": record.state.value}

    async def prepare(self, caller: Identity, request: Message) -> Message:
        """Make new queue pairs beside the old ones and connect them to the destination's."""
        record, agent = self._record(request["migration"]), self._agent
        self._require_key(record, request["key"])
        destination = Contact(**request["destination"])
        agent.require_is(caller, destination)
        await self._require_holder(caller, record, request["epoch"])
        self._hear(record)
        for one in request["connections"]:
            agent.require_speaks_for(caller, one["new_peer_gid"], destination.address)
        for one in request["places"]:
            agent.require_speaks_for(caller, one["new_gid"], destination.address)
        async with agent.lock(record.id):
            self._require_not_lost(record)
            epoch = request["epoch"]
            if record.state is State.PREPARED and record.data.epoch == epoch:
                return {"connections": record.data.prepared, "lost": record.data.lost}
            if record.data.epoch >= epoch or record.state not in (State.SUSPENDED, State.PREPARED):
                raise RefusedError(
                    f"migration {record.id} is {record.state.value} here for claim {record.data.epoch}; "
                    f"claim {epoch} is too old"
                )
            wanted = {(one["gid"], one["qpn"]): one for one in request["connections"]}
            known = {(one.gid, one.qpn) for guest in record.data.guests for one in guest.qps}
            if wanted.keys() != known:
                raise RefusedError(f"migration {record.id} has {len(known)} connections here, not these ones")
            said = [{name: one[name] for name in ("vgid", "vqpn", "gid", "qpn")} for one in request["places"]]
            if said != record.data.datagrams:
                raise RefusedError(
                    f"migration {record.id} has {len(record.data.datagrams)} queue pairs for datagrams, not these ones"
                )
            agent.fault_point("partner: prepare")
            keys, places = remote_keys.unpack(request["keys"]), place_records(request["places"])
            made: list[Prepared] = await wait_for_all(
                *(prepare_guest(agent, guest, wanted, keys, places) for guest in record.data.guests)
            )
            prepared = [connection for one in made for connection in one.connections]
            lost = [connection for one in made for connection in one.lost]
            agent.fault_point("partner: prepared")
            self._store.move(
                record,
                State.PREPARED,
                epoch=epoch,
                destination=destination,
                prepared=prepared,
                lost=lost,
                places=request["places"],
            )
        return {"connections": prepared, "lost": lost}

    async def retract(self, caller: Identity, request: Message) -> Message:
        """The destination did not make it: wait for the next one. The new queue pairs stay until then."""
        record = self._record(request["migration"])
        self._require_key(record, request["key"])
        async with self._agent.lock(record.id):
            if request["epoch"] < record.data.epoch:
                return {}  # a later claim has been prepared for: nothing is left of this one
            if request["epoch"] not in (record.data.epoch, record.data.granted):
                return {}  # nothing of this claim has come here, and what comes late is asked about at the source
            self._require_granted(caller, record, request["epoch"])
            if record.state is State.PREPARED:
                self._store.move(record, State.SUSPENDED, epoch=request["epoch"])
            elif record.state is State.SUSPENDED:
                self._store.note(record, epoch=request["epoch"])  # a late prepare of it is too old now
        return {}

    async def switch(self, caller: Identity, request: Message) -> Message:
        """The destination has committed: go on, on the new queue pairs."""
        record = self._record(request["migration"])
        self._require_key(record, request["key"])
        self._agent.fault_point("partner: switch")
        async with self._agent.lock(record.id):
            if record.data.epoch != request["epoch"]:
                raise RefusedError(
                    f"migration {record.id} is prepared for claim {record.data.epoch}, "
                    f"not for {request['epoch']}"
                )
            self._require_granted(caller, record, request["epoch"])
            await self._go_forward(record)
        # What it is told for people must not keep it from hearing that this is done: a checkpoint may wait for weeks.
        return {"blackout": min(record.data.blackout or 0.0, agent_messages.MOST_SECONDS)}

    # --- when nobody asks -------------------------------------------------------------------------------

    def recover(self) -> None:
        """After a start: go on where the last agent stopped. What was here before a reboot is gone."""
        for record in self._store.all(PartnerData):
            if record.is_final:
                self._agent.tasks.follow(record.id, tell_until_all_know(self._agent, record, self.settle))
            elif record.data.boot == self._agent.containers.boot:
                self._agent.tasks.follow(record.id, self.watch(record))
            else:
                if record.state is State.PREPARED:
                    self._store.move(record, State.SUSPENDED)
                self._store.move(record, State.LOST, reason="the host was started anew")

    async def watch(self, record: PartnerRecord) -> None:
        """Ask, and give up when there has been no word for too long; as long as there is, wait for ever."""
        self._hear(record)
        while not record.is_final:
            await asyncio.sleep(self._deadlines.ask)
            if record.is_final:
                return
            try:
                await self._look_around(record)
            except AgentError as error:  # a full disk, above all: the wait must not end by it
                _log.error("migration %s: %s", record.id, error)

    async def _look_around(self, record: PartnerRecord) -> None:
        generation = record.data.generation
        silent = await self._ask_around(record)
        if not silent:
            self._hear(record)
            await self._pass_the_word_on(record)
        async with self._agent.lock(record.id):
            if record.data.generation != generation:
                self._hear(record)  # from whoever has adopted the checkpoint while the former one was silent
            waited = boot_clock() - self._heard[record.id]
            if not record.is_final and waited > self._deadlines.partner:
                heard = f"nothing was heard of it for {self._deadlines.partner:g} s"
                await self._give_up(record, heard + (f" ({silent})" if silent else ""))

    def _hear(self, record: PartnerRecord) -> None:
        self._heard[record.id] = boot_clock()

    async def _pass_the_word_on(self, record: PartnerRecord) -> None:
        """Let the guests hear something: they too count the time without a word, and would go on by themselves."""
        for one in _with_queue_pairs(record) if not record.is_final else ():
            guest = self._agent.guests.find(one.container, one.process, one.process_id)
            if guest is not None:
                try:
                    await guest.contexts(self._deadlines.guest)
                except GuestError as error:
                    _log.warning("migration %s: %s", record.id, error)

    async def settle(self, guest: Guest, record: PartnerRecord) -> None:
        """Have a guest do what the record's state says, if that is still to be done."""
        async with self._agent.lock(f"{record.id} {guest.name}"):
            if guest.name not in record.data.pending or not is_meant(self._agent, record, guest):
                return
            if record.state is State.SWITCHED and record.data.guest(guest.name).only_hears:
                await self._tell_where_it_is(guest, record)
            elif record.state is State.SWITCHED:
                await guest.resume(self._deadlines.guest)
            elif record.state in (State.UNDONE, State.LOST):
                await guest.undo(self._deadlines.guest)
            else:
                return
            left = [name for name in record.data.pending if name != guest.name]
            self._store.remember(record, pending=left, **({} if left else _shortened(record)))

    async def _tell_where_it_is(self, guest: Guest, record: PartnerRecord) -> None:
        """Tell a process that only hears of it; of one migration at a time, as the next list would replace its own."""
        async with self._agent.lock(f"places of {guest.container} {guest.name}"):
            if record.data.places:
                if self._places[0] is not record.data.places:
                    self._places = record.data.places, place_records(record.data.places)
                await guest.learn_places(self._places[1], self._deadlines.guest)
            await guest.resume(self._deadlines.guest)

    async def reconnected(self, guest: Guest, record: PartnerRecord) -> None:
        """Notice a guest that has gone on by itself while it had no agent: its connection is no one's to move."""
        async with self._agent.lock(record.id):
            waits = record.state in (State.SUSPENDED, State.PREPARED) and record.data.drained
            if not waits or guest.state is not GuestState.RUNNING or record.data.guest(guest.name).only_hears:
                return
            if record.state is State.PREPARED:
                self._store.move(record, State.SUSPENDED)
            reason = f"{guest} went on while it had no agent"
            _log.error("migration %s is lost: %s", record.id, reason)
            self._store.move(record, State.LOST, reason=reason, **_pending(record))
            await self._settle_all(record)

    async def _ask_around(self, record: PartnerRecord) -> str:
        """Learn from either end how it stands, and act on it; returns why nothing was learnt."""
        source = record.data.decides
        try:
            answer = await self._agent.ask(source, "outcome", {"migration": record.id})
        except AllowanceError:
            silent, state = "", "?"  # it is there, and says how it stands when it is asked less
        except AgentError as error:
            silent, state = str(error), "?"
        else:
            silent, state = "", answer["state"]
        if state == State.PARKED.value and not record.data.parked:
            async with self._agent.lock(record.id):  # it could not tell us when it was
                if source == record.data.decides and not record.is_final:
                    self._store.note(record, parked=True)
        if state in (State.UNDONE.value, State.ABANDONED.value, UNKNOWN):
            async with self._agent.lock(record.id):
                if source != record.data.decides:
                    return ""  # the checkpoint was adopted meanwhile: another one decides now
                if not record.is_final:
                    self._store.move(record, State.UNDONE, **_pending(record))
                await self._settle_all(record)
        elif state == State.SUPERSEDED.value:
            # Whoever has adopted it comes by itself. Until then there is nobody who decides: that is no word.
            return f"{source.name} does not decide about it any more, and nobody has come who does"
        elif record.state is State.PREPARED and record.data.destination:
            unheard = await self._ask_destination(record, record.data.destination)
            # Of what has been committed only the destination has to tell.
            return unheard if silent or state in _OVER else ""
        return silent

    async def _ask_destination(self, record: PartnerRecord, destination: Contact) -> str:
        epoch = record.data.epoch
        request = {"migration": record.id, "epoch": epoch}
        try:
            state = (await self._agent.ask(destination, "holding", request))["state"]
        except AgentError as error:
            return str(error)
        async with self._agent.lock(record.id):
            if record.state is State.PREPARED and record.data.epoch == epoch:
                if state in _OVER:
                    await self._go_forward(record)
                elif state in _NOT_MINE:
                    self._store.move(record, State.SUSPENDED)
        return ""

    async def abandon(self, migration: str, _lost: bool) -> None:
        """End the wait for a person who says so, as if there had been no word for too long."""
        record = self._record(migration)
        async with self._agent.lock(record.id):
            if record.is_final:
                left = f"what is left ends so: {outlook.way_out(record, self._deadlines)}"
                raise RefusedError(
                    f"migration {migration} is {record.state.value} here: it waits for "
                    f"{f'processes only, and {left}' if record.data.pending else 'nobody'}"
                )
            await self._give_up(record, "given up by a person")

    async def _give_up(self, record: PartnerRecord, reason: str) -> None:
        """End the wait in the only direction that cannot connect this end to two others."""
        _log.error("giving up migration %s: %s; its connections will fail", record.id, reason)
        if record.state is State.PREPARED:
            # The destination may be running, and then this is its switch. If not, the NIC reports an error.
            await self._go_forward(record)
        else:
            # No restore can succeed any more: it would need this end. The old connection works if the source
            # was resumed, and otherwise the NIC reports an error.
            self._store.move(record, State.LOST, reason=reason, **_pending(record))
            await self._settle_all(record)

    async def _go_forward(self, record: PartnerRecord) -> None:
        if record.state is State.PREPARED:
            began = record.data.quiesced_monotonic
            blackout = 0.0 if began is None else max(0.0, time.monotonic() - began)
            everybody = [one.process for one in record.data.guests]
            self._store.move(record, State.SWITCHED, blackout=blackout, pending=everybody)
        if record.state is not State.SWITCHED:
            raise RefusedError(f"migration {record.id} is {record.state.value} here, it cannot be switched")
        await self._settle_all(record)

    async def _settle_all(self, record: PartnerRecord) -> None:
        """Settle the guests that are connected, and go on with the others until they are."""
        self._agent.fault_point("partner: settle")
        told: list[Guest] = []
        hear: list[Guest] = []
        for one in record.data.guests:
            guest = self._agent.guests.find(one.container, one.process, one.process_id)
            if guest is not None:
                (hear if one.only_hears else told).append(guest)
        # At once: one that hangs would keep the others from going on.
        await wait_for_all(
            *(self._settle_or_say(guest, record) for guest in told), self._have_heard(hear, record)
        )
        self._agent.tasks.follow(record.id, tell_until_all_know(self._agent, record, self.settle))

    async def _have_heard(self, guests: list[Guest], record: PartnerRecord) -> None:
        """Tell who only hears of it, before the container goes on elsewhere: for as long as it is to wait for them.

        Anybody who sends to that host may be one of them. Who has not heard by then goes on being told.
        """
        hear = [self._agent.tasks.follow(record.id, self._settle_or_say(guest, record)) for guest in guests]
        if hear:
            await asyncio.wait(hear, timeout=self._deadlines.ask)

    async def _settle_or_say(self, guest: Guest, record: PartnerRecord) -> None:
        try:
            await self.settle(guest, record)
        except (GuestError, MessageError) as error:
            _log.info("migration %s: %s; it is told again", record.id, error)  # which says the way out

    # --- who may -----------------------------------------------------------------------------------------

    def _record(self, migration: str) -> PartnerRecord:
        record = self._store.find(migration, PartnerData)
        if record is None:
            raise RefusedError(
                f"{self._agent.identity.name} is no partner of migration {migration}, or not any more"
            )
        return record

    @staticmethod
    def _require_source(caller: Identity, record: PartnerRecord) -> None:
        if caller.name != record.data.decides.name:
            said = f"agent {caller.name} is not the source of migration {record.id}"
            if record.data.arbiter is not None:
                said += f": {record.data.arbiter.name} has adopted its checkpoint"
            raise RefusedError(said)

    async def _require_holder(self, caller: Identity, record: PartnerRecord, epoch: int) -> None:
        """Whether the claim is the caller's; the source's agent, which grants them, is asked if it has not said so.

        The key alone does not tell: it is in every copy of the manifest.
        """
        source = record.data.decides
        if record.data.arbiter is not None and epoch <= record.data.generation * GENERATION_CLAIMS:
            raise RefusedError(
                f"claim {epoch} on migration {record.id} has lapsed: {source.name} has adopted its checkpoint, and "
                "restores it, or whoever has a copy from there"
            )
        if epoch > record.data.granted:
            answer = await self._agent.ask(source, "outcome", {"migration": record.id})
            if answer["epoch"] != epoch or answer["holder"] is None:
                raise RefusedError(
                    f"claim {epoch} on migration {record.id} has lapsed, or was never granted, says {source.name}"
                )
            if epoch > record.data.granted:
                # On the disk with the next state. An agent that is restarted before asks again.
                record.data.granted, record.data.granted_to = epoch, answer["holder"]["name"]
        self._require_granted(caller, record, epoch)

    @staticmethod
    def _require_granted(caller: Identity, record: PartnerRecord, epoch: int) -> None:
        """Whether the claim is the caller's, by what the source's agent has said of it here."""
        known = epoch == record.data.granted
        # A record of an agent before this was kept knows only for whom it has prepared.
        holder = record.data.granted_to if known else record.data.destination and record.data.destination.name
        if caller.name != holder:
            raise RefusedError(
                f"agent {caller.name} does not hold claim {epoch} on migration {record.id}: it was granted to "
                f"{holder or 'another one'}"
            )

    @staticmethod
    def _require_key(record: PartnerRecord, key: str) -> None:
        if not tokens.matches(key, record.data.key_digest):
            raise RefusedError(f"that is not the key of migration {record.id}: the token is another one's")

    def _require_not_lost(self, record: PartnerRecord) -> None:
        if record.state is State.LOST:
            raise RefusedError(
                f"a partner's agent, {self._agent.identity.name}, has given migration {record.id} up: "
                f"{record.data.reason}"
            )
        if record.state is State.UNDONE:
            raise RefusedError(f"migration {record.id} was undone: its partners went on with the source")


def _shortened(record: PartnerRecord) -> dict[str, Any]:
    """What is kept when all know how it ended. Late comers may ask for a switched one by the numbers of before."""
    if record.state is State.SWITCHED:
        return _NO_LISTS
    return {**_NO_LISTS, "guests": [replace(one, qps=[]) for one in record.data.guests]}


def _with_queue_pairs(record: PartnerRecord) -> list[PartnerGuest]:
    """The processes of which something waits for the end."""
    return [one for one in record.data.guests if not one.only_hears]


def _pending(record: PartnerRecord) -> dict[str, Any]:
    """Whom it is to be told that all stays as it was: of the container's queue pairs nothing is needed any more."""
    return {"pending": [one.process for one in _with_queue_pairs(record)], **_NO_LISTS}
