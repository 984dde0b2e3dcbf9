"""Whose word on a checkpoint a partner believes: its source's, until another host has adopted it.

What makes two arbiters harmless is here. A partner that has agreed to the later one prepares for no claim of the
earlier one any more, whatever has become of that one; and without every partner nobody commits. So it agrees only

- after the source has said that the dump has succeeded (*parked*): what is not dumped may still go on there;
- while it is prepared for nobody, and has switched for nobody: a claim that it has prepared for may be committed;
- when whoever has decided until now does not answer it either. A person has said that it is fenced, and may err;
- to one after the other: to a higher generation than that of the last, and in the place of the very one it believes.
"""

from __future__ import annotations

from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.roles.records import PartnerData, PartnerRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.base.errors import AllowanceError, RefusedError, UnreachableError
from migrrdma_runtime.wire import tokens
from migrrdma_runtime.wire.agent_messages import GENERATION_CLAIMS, Contact, Message


class PartnersArbiter:
    """Answers *parked* and *adopt*."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._store = agent.store
        agent.handlers |= {"parked": self.parked, "adopt": self.adopt}

    async def parked(self, caller: Identity, request: Message) -> Message:
        """Hear that the dump has succeeded, and say who decides."""
        record = self._record(request)
        data = record.data
        async with self._agent.lock(record.id):
            if caller.name == data.decides.name:
                if not (data.parked or record.is_final):
                    self._store.note(record, parked=True)
            elif caller.name not in (data.source.name, *data.former):
                raise RefusedError(f"agent {caller.name} is not the source of migration {record.id}")
        return {"generation": data.generation, "arbiter": data.decides.as_message()}

    async def adopt(self, caller: Identity, request: Message) -> Message:
        """Believe another arbiter from now on, and for ever: it is on the disk before this is answered."""
        record, arbiter = self._record(request), Contact(**request["arbiter"])
        if not tokens.matches(request["key"], record.data.key_digest):
            raise RefusedError(f"that is not the key of migration {record.id}: the token is another one's")
        self._agent.require_is(caller, arbiter)
        silent = await self._require_silent(record, arbiter)
        async with self._agent.lock(record.id):
            self._require_free(record)
            data, generation = record.data, request["generation"]
            if data.arbiter == arbiter and data.generation == generation:
                return {}  # asked again: the first answer was lost
            if data.decides != silent:
                raise RefusedError(
                    f"{data.decides.name} has adopted migration {record.id} meanwhile, says its partner "
                    f"{self._agent.identity.name}, and nobody has asked whether it answers: run the command again"
                )
            if data.decides.name not in (request["fenced"], arbiter.name):
                raise RefusedError(
                    f"migration {record.id} is {data.decides.name}'s to decide about, says its partner "
                    f"{self._agent.identity.name}, not {request['fenced']}'s: adopt it there, or give it up there "
                    f"(migrrdma migration abandon) or declare that host fenced (--fenced {data.decides.name})"
                )
            if generation <= data.generation:
                raise RefusedError(
                    f"generation {generation} of migration {record.id} is too old, says its partner "
                    f"{self._agent.identity.name}: the last one is {data.generation}; run the command again"
                )
            former = [*data.former, data.arbiter.name] if data.arbiter else data.former
            # The numbers of all claims that the earlier ones may have granted are used up.
            floor = generation * GENERATION_CLAIMS
            self._store.note(
                record, arbiter=arbiter, generation=generation, former=former, epoch=floor, granted=floor,
                granted_to="", destination=None,
            )  # fmt: skip
        return {}

    async def _require_silent(self, record: PartnerRecord, arbiter: Contact) -> Contact:
        """Refuse while whoever decides does so: who that was, when it was asked."""
        decides = record.data.decides
        if decides.name == arbiter.name:
            return decides
        try:
            state = (await self._agent.ask(decides, "outcome", {"migration": record.id}))["state"]
        except AllowanceError:
            state = "what it has no time to say"  # whoever says that is there
        except UnreachableError:
            return decides
        if state != State.SUPERSEDED.value:
            raise RefusedError(
                f"the agent of {decides.name} answers its partner {self._agent.identity.name}: it is not gone, and "
                f"migration {record.id} is {state} there; restore it by that agent, or end that host for "
                "good before its checkpoint is adopted"
            )
        return decides

    def _require_free(self, record: PartnerRecord) -> None:
        here = self._agent.identity.name
        if record.state is State.PREPARED:
            holder = record.data.destination.name if record.data.destination else "another host"
            raise RefusedError(
                f"partner {here} has prepared migration {record.id} for {holder}, where it may run: when {holder} "
                "has given it back, run the command again"
            )
        if record.state is not State.SUSPENDED:
            raise RefusedError(
                f"migration {record.id} is {record.state.value} at its partner {here}: it does not wait for a "
                "restore any more"
            )
        if not record.data.parked:
            raise RefusedError(
                f"partner {here} has not heard that the dump of migration {record.id} succeeded: the container may "
                f"still run on {record.data.source.name}"
            )

    def _record(self, request: Message) -> PartnerRecord:
        record = self._store.find(request["migration"], PartnerData)
        if record is None:
            raise RefusedError(
                f"{self._agent.identity.name} is no partner of migration {request['migration']}, or not any more"
            )
        return record
