"""Deciding about a checkpoint in the place of a host that is gone for ever.

A person has declared that host fenced. This agent writes down what it is about to do, so that it can answer a partner
that asks; then every partner agrees, or it is not done; and only then the checkpoint waits here, as this host's own.
partners_arbiter.py says why that is safe whether or not the host is really gone. Two that adopt at once can each get
some of the partners, and neither all: either gives up, then the other runs the command again.
"""

from __future__ import annotations

import asyncio

from migrrdma_runtime.agent.local.containers import ProcessId
from migrrdma_runtime.agent.roles.records import DestinationData, SourceData, SourceRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, wait_for_all
from migrrdma_runtime.base.errors import AgentError, AllowanceError, RefusedError, UnreachableError
from migrrdma_runtime.wire import manifest, manifest_schema, tokens
from migrrdma_runtime.wire.agent_messages import (
    GENERATION_CLAIMS,
    MOST_GENERATIONS,
    Contact,
    Message,
)


class Adoption:
    """The agent that comes to decide."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._store = agent.store

    async def adopt(self, document: Message, fenced: str) -> Message:
        """Become the arbiter of a checkpoint, by its manifest; the answer has the one that it has from now on."""
        await asyncio.to_thread(manifest_schema.validate, document)
        migration = document["migration"]
        async with self._agent.lock(f"adopt {migration}"):
            record = self._store.find(migration, SourceData)
            if record is None or record.state in (State.ADOPTING, State.SUPERSEDED):
                await self._require_gone(document, fenced)
                record = self._begin(document, fenced, record)
                await self._ask_partners(record, document)
                self._store.move(record, State.PARKED)
            elif not record.data.generation:
                raise RefusedError(
                    f"migration {migration} is {self._agent.identity.name}'s own ({record.state.value}): there is "
                    "nothing to adopt"
                )
            elif record.state not in (State.PARKED, State.CLAIMED):
                raise RefusedError(f"migration {migration} was adopted here, and is {record.state.value}")
        return {"manifest": self._readdressed(document)}

    async def _require_gone(self, document: Message, fenced: str) -> None:
        """What can be refused before anything is touched."""
        source, here = Contact(**document["source"]), self._agent.identity.name
        if document["left_running"]:
            raise RefusedError(
                "the container went on running after this checkpoint: there is nothing that its host decides about"
            )
        if fenced == here:
            raise RefusedError(f"{here} is this host, and its agent answers: it is not gone")
        restored = self._store.find(document["migration"], DestinationData)
        if restored is not None and restored.state is not State.RELEASED:
            raise RefusedError(
                f"migration {document['migration']} is {restored.state.value} here, as container "
                f"{restored.data.container:.12}: what is restored, or is being, is not adopted"
            )
        if fenced != source.name:
            if not document["partners"]:
                raise RefusedError(
                    f"the checkpoint was made on {source.name}, which decides about it, not on {fenced}"
                )
            return  # one who has adopted it before: the partners know whether
        if source.name == here:
            return
        try:
            await self._agent.greet(source.address)
        except AllowanceError:
            pass  # whoever says that it is asked too much is there
        except UnreachableError:
            return
        except AgentError as error:
            raise RefusedError(
                f"something answers at {source.address}, the address of {fenced}, which was said to be fenced: {error}"
            ) from error
        raise RefusedError(
            f"the agent of {fenced} answers at {source.address}: it is not gone, and the checkpoint can be restored "
            "by it; end it for good before its checkpoint is adopted"
        )

    def _begin(self, document: Message, fenced: str, former: SourceRecord | None) -> SourceRecord:
        """Write down that it is about to be done: a partner that has agreed asks here from then on."""
        generation = former.data.generation + 1 if former else 1
        if generation > MOST_GENERATIONS:
            raise RefusedError(f"migration {document['migration']} was adopted too often")
        changes = {"generation": generation, "epoch": generation * GENERATION_CLAIMS, "fenced": fenced}
        if former is not None and former.state is State.ADOPTING:
            self._store.note(former, **changes)
            return former
        key = tokens.key_for(document["token"], self._agent.identity.name)
        if former is not None:
            self._store.move(
                former, State.ADOPTING, successor="", reason="", key_digest=tokens.digest(key), **changes
            )
            return former
        data = SourceData(
            container=document["container"],
            left_running=False,
            key_digest=tokens.digest(key),
            guests=[],
            processes=[],
            partners=[Contact(one["name"], one["address"]) for one in document["partners"]],
            runtime=ProcessId(0, ""),
            epoch=generation * GENERATION_CLAIMS,
            boot=self._agent.containers.boot,
            generation=generation,
            fenced=fenced,
        )
        return self._store.begin(document["migration"], data, State.ADOPTING)

    async def _ask_partners(self, record: SourceRecord, document: Message) -> None:
        """Have all of them believe this agent; `AgentError` of the one that does not, with what is to be done."""
        # Each asks whoever has decided so far first, which is to be gone.
        limit = 3 * self._agent.config.deadlines.peer

        async def ask(partner: Contact) -> None:
            request = {
                "migration": record.id,
                "key": tokens.key_for(document["token"], partner.name),
                "arbiter": self._agent.contact.as_message(),
                "generation": record.data.generation,
                "fenced": record.data.fenced,
            }
            await self._agent.ask(partner, "adopt", request, limit)

        await wait_for_all(*(ask(one) for one in record.data.partners))

    def _readdressed(self, document: Message) -> Message:
        """The manifest, naming this agent as the one that is asked for the claim."""
        members = {name: value for name, value in document.items() if name not in ("version", "digest")}
        return manifest.seal({**members, "source": self._agent.contact.as_message()})
