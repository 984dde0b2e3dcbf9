"""Whoever decides about a checkpoint says to its partners that it waits, and hears whether it still is the one.

From then on a partner may be asked to have another host decide (partners_arbiter.py), should this one be gone. When
this one comes back, or a restore was given back, it asks again: if another decides by then, it does no more.
"""

from __future__ import annotations

import asyncio
import logging

from migrrdma_runtime.agent.roles.records import SourceRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.base.errors import AgentError, RefusedError, StaleRecordError
from migrrdma_runtime.wire.agent_messages import Contact

_log = logging.getLogger(__name__)

_WAITS = (State.PARKED, State.CLAIMED)


async def tell_that_it_waits(agent: ThisAgent, record: SourceRecord, *, once: bool = False) -> None:
    """Tell every partner, each until it has heard or the wait is over; ``once``: those that can be reached now."""
    if record.data.move:
        return  # its processes are here: nobody is to decide in the place of their host
    await asyncio.gather(*(_tell(agent, record, one, once=once) for one in record.data.partners))


async def _tell(agent: ThisAgent, record: SourceRecord, partner: Contact, *, once: bool) -> None:
    while record.state in _WAITS:
        try:
            answer = await agent.ask(partner, "parked", {"migration": record.id})
            if answer["generation"] > record.data.generation:
                await _be_superseded(agent, record, answer["arbiter"]["name"])
        except (RefusedError, StaleRecordError) as error:
            _log.info("%s", error)  # it waits no more
        except AgentError as error:  # also a full disk: what it has heard it hears again
            _log.info("%s", error)
            if not once:
                await asyncio.sleep(agent.config.deadlines.ask)
                continue
        return


async def _be_superseded(agent: ThisAgent, record: SourceRecord, successor: str) -> None:
    """Decide no more. A claim that was granted can have come to nothing: that partner would not prepare for it."""
    async with agent.lock(record.id):
        if record.state in _WAITS:
            reason = f"{successor} has adopted the checkpoint"
            _log.warning("migration %s is not this host's any more: %s", record.id, reason)
            agent.store.move(record, State.SUPERSEDED, holder=None, successor=successor, reason=reason)
