"""The source's word on a dumped container: who may restore it, and whether it has been.

The checkpoint can be copied, and a restore can be tried on several hosts, or twice. Each try is a *claim*
with a number of its own; the last one that was granted is the only one that can be committed. It belongs to the agent
that it was granted to, by its certificate: who has a copy of the manifest has the key as well.
"""

from __future__ import annotations

import time

from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.roles.homes import tell_the_homes
from migrrdma_runtime.agent.roles.parked import tell_that_it_waits
from migrrdma_runtime.agent.roles.records import SourceData, SourceRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, boot_clock
from migrrdma_runtime.base.errors import AllowanceError, RefusedError, UnreachableError
from migrrdma_runtime.wire import tokens
from migrrdma_runtime.wire.agent_messages import UNKNOWN, Contact, Message


class Arbiter:
    """Grants claims, and commits."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._store = agent.store
        agent.handlers |= {
            "claim": self.claim,
            "commit": self.commit,
            "release": self.release,
            "finish": self.finish,
            "outcome": self.outcome,
        }

    async def claim(self, caller: Identity, request: Message) -> Message:
        """Grant a restore, to one destination at a time."""
        record = self._record(request)
        holder = Contact(**request["destination"])
        self._agent.require_is(caller, holder)
        async with self._agent.lock(record.id):
            again = record.data.attempt == request["attempt"] and _holds(caller, record)
            if record.state is State.CLAIMED and again:
                return _granted(record)  # asked again: the first answer was lost
            if record.state in (State.CLAIMED, State.COMMITTED) and record.data.holder:
                await self._take_back(record, record.data.holder)
            if record.state is not State.PARKED:
                raise RefusedError(_explain_state(record))
            if record.data.only_for not in ("", caller.name):
                raise RefusedError(
                    f"migration {record.id} is a move to {record.data.only_for}: nobody else restores it"
                )
            self._store.move(
                record,
                State.CLAIMED,
                epoch=record.data.epoch + 1,
                attempt=request["attempt"],
                holder=holder,
                claimed=boot_clock(),
                claimed_in=self._agent.containers.boot,
            )
        return _granted(record)

    async def commit(self, caller: Identity, request: Message) -> Message:
        """Make the destination the authority: the one line at which a migration happens."""
        record = self._record(request)
        async with self._agent.lock(record.id):
            self._require_current(record, request["epoch"])
            _require_holder(caller, record)
            if record.state is State.CLAIMED:
                self._agent.fault_point("arbiter: commit")
                # ═══ The commit point. Before this line is on disk the source decides, afterwards the holder.
                self._store.move(record, State.COMMITTED, committed=time.time())
                self._agent.tasks.follow(record.id, tell_the_homes(self._agent, record))
            elif record.state not in (State.COMMITTED, State.DONE):
                raise RefusedError(_explain_state(record))
        return {}

    async def release(self, caller: Identity, request: Message) -> Message:
        """Take a claim back from a holder that will never act on it again."""
        record = self._record(request)
        async with self._agent.lock(record.id):
            current = record.data.epoch == request["epoch"]
            if current and record.state in (State.CLAIMED, State.COMMITTED):
                _require_holder(caller, record)
                self._store.move(record, State.PARKED, holder=None)
                # Its partners may have refused it because another host decides by now.
                self._agent.tasks.follow(record.id, tell_that_it_waits(self._agent, record, once=True))
        return {}

    async def finish(self, caller: Identity, request: Message) -> Message:
        """Every partner has switched: nobody will ask any more."""
        record = self._record(request)
        async with self._agent.lock(record.id):
            self._require_current(record, request["epoch"])
            _require_holder(caller, record)
            if record.state is State.COMMITTED:
                self._store.move(record, State.DONE)
        return {}

    async def abandon(self, migration: str, lost: bool) -> None:
        """Give up a checkpoint for a person who says so; ``lost``: also one whose destination is gone with it.

        Partners learn of it when they ask. Raises `RefusedError` for one that is restored, or is just being.
        """
        record = self._store.find(migration, SourceData)
        if record is None:
            raise RefusedError(
                f"{self._agent.identity.name} has made no checkpoint called migration {migration}"
            )
        async with self._agent.lock(record.id):
            if record.state is State.CLAIMED and record.data.holder:
                await self._take_back(record, record.data.holder)
            if record.data.move and record.state in (State.PARKED, State.CLAIMED):
                raise RefusedError(
                    f"migration {record.id} is a move whose processes are here and go on if it fails: end it with "
                    f"`migrrdma migration cancel {record.data.move}`"
                )
            if record.state is State.PARKED:
                self._store.move(record, State.ABANDONED, reason="given up by a person")
            elif record.state is State.COMMITTED and lost:
                self._store.move(record, State.DONE, reason="the host that it was restored on is lost")
            elif record.state is State.ADOPTING:
                self._store.move(record, State.SUPERSEDED, reason="the adoption was given up by a person")
            elif record.state is State.SUPERSEDED:
                self._store.move(
                    record, State.ABANDONED, left=True, reason="left to another host by a person"
                )
            else:
                raise RefusedError(_explain_state(record))

    async def take_back(self, record: SourceRecord) -> bool:
        """Have nobody commit a move any more, as far as it is not committed: whether that is so now.

        False: its destination is the authority, or may still become it, as it cannot be asked. Ask again.
        """
        async with self._agent.lock(record.id):
            if record.state in (State.CLAIMED, State.COMMITTED) and record.data.holder:
                try:
                    await self._take_back(record, record.data.holder)
                except RefusedError:
                    return False
            if record.state is State.PARKED:
                # Before anything goes on: from here on no claim is granted.
                self._store.accept(record, State.UNDONE, pending=record.data.guests)
        return record.state is State.UNDONE

    async def outcome(self, caller: Identity, request: Message) -> Message:
        """How it stands, to a partner that has heard nothing."""
        record = self._store.find(request["migration"], SourceData)
        if record is None:
            return {"state": UNKNOWN, "epoch": 0, "holder": None}
        partners = {one.name for one in record.data.partners}
        if caller.name not in partners and caller.name != self._agent.identity.name:
            raise RefusedError(f"agent {caller.name} is no partner of migration {record.id}")
        # Who has left it to another host has not given it up for that one: a partner may not have heard of it yet.
        state = State.SUPERSEDED if record.data.left else record.state
        return {
            "state": state.value,
            "epoch": record.data.epoch,
            "holder": record.data.holder.as_message() if record.data.holder else None,
        }

    async def _take_back(self, record: SourceRecord, holder: Contact) -> None:
        """See whether the last claim's holder still wants it.

        A holder that cannot be asked loses a claim it has not committed, once it has had time to: its commit
        will be refused, whenever it comes. One that has committed keeps it for ever.
        """
        epoch = record.data.epoch
        try:
            answer = await self._agent.ask(holder, "holding", {"migration": record.id, "epoch": epoch})
            state = answer["state"]
        except UnreachableError as error:
            # A host that was started anew knows of its present boot only.
            same = record.data.claimed_in == self._agent.containers.boot
            age = boot_clock() - (record.data.claimed if same else 0)
            # Whoever says that it is asked too much is there.
            lives = isinstance(error, AllowanceError)
            if lives or record.state is State.COMMITTED or age < self._agent.config.deadlines.doubt:
                raise RefusedError(f"{_explain_state(record)}, and cannot be asked: {error}") from error
            state = UNKNOWN
        if state == State.RELEASED.value or (state == UNKNOWN and record.state is State.CLAIMED):
            self._store.move(record, State.PARKED, holder=None)

    def _record(self, request: Message) -> SourceRecord:
        record = self._store.find(request["migration"], SourceData)
        if record is None:
            raise RefusedError(
                f"{self._agent.identity.name} does not know migration {request['migration']}: its agent's "
                "state was removed since, and the checkpoint's connections cannot be restored any more"
            )
        if not tokens.matches(request["key"], record.data.key_digest):
            raise RefusedError(f"that is not the key of migration {record.id}: the token is another one's")
        return record

    @staticmethod
    def _require_current(record: SourceRecord, epoch: int) -> None:
        if record.data.epoch != epoch:
            raise RefusedError(
                f"claim {epoch} on migration {record.id} has lapsed; the last one is {record.data.epoch}"
            )


def _holds(caller: Identity, record: SourceRecord) -> bool:
    return record.data.holder is not None and record.data.holder.name == caller.name


def _require_holder(caller: Identity, record: SourceRecord) -> None:
    if record.data.holder is None:
        raise RefusedError(_explain_state(record))
    if not _holds(caller, record):
        raise RefusedError(
            f"agent {caller.name} does not hold claim {record.data.epoch} on migration {record.id}: it was granted "
            f"to {record.data.holder.name}"
        )


def _granted(record: SourceRecord) -> Message:
    return {"epoch": record.data.epoch, "timeline": record.data.timeline}


def _explain_state(record: SourceRecord) -> str:
    holder = record.data.holder.name if record.data.holder else "?"
    words = {
        State.SUSPENDING: "is not dumped yet",
        State.DUMPING: "is not dumped yet",
        State.PARKED: "waits to be restored",
        State.CLAIMED: f"is being restored on {holder}",
        State.COMMITTED: f"was restored on {holder} already",
        State.DONE: f"was restored on {holder} already",
        State.ABANDONED: "was given up by a person",
        State.UNDONE: "was undone: the container went on running after this checkpoint",
        State.ADOPTING: "is not adopted yet: not every partner has agreed; run `migrrdma migration adopt` again",
        State.SUPERSEDED: f"is not this host's any more: {record.data.successor or 'another host'} is to decide "
        "about it; restore the checkpoint as that host has it",
    }
    return f"migration {record.id} {words[record.state]}"
