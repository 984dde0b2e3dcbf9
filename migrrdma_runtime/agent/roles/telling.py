"""Guests that are still to be told how their migration ended: told again until each has done it, or has ended.

A guest refuses or times out for reasons that pass: a thread of it is in a long ``ibv_reg_mr``, it is stopped in a
debugger, its memory is short. What was decided is decided, so there is no other end to it than that it does it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.roles.delays import Delays
from migrrdma_runtime.agent.roles.outlook import whereabouts
from migrrdma_runtime.agent.roles.records import Record
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.base.errors import AgentError, StaleRecordError

_log = logging.getLogger(__name__)

Settle = Callable[[Guest, Any], Coroutine[Any, Any, None]]
"""A role's ``settle``: has a guest do what the record's state says, and takes it out of ``pending``."""


async def tell_until_all_know(agent: ThisAgent, record: Record[Any], settle: Settle) -> None:
    """Tell the record's pending guests, every ``deadlines.ask`` seconds, until none is left."""
    delays = Delays(agent, record)
    is_again = False
    try:
        while record.data.pending:
            await asyncio.gather(
                *(_tell(agent, record, settle, name, delays, is_again) for name in record.data.pending)
            )
            if record.data.pending:
                await asyncio.sleep(agent.config.deadlines.ask)
            is_again = True
    except StaleRecordError as error:
        _log.info("%s", error)


async def _tell(
    agent: ThisAgent, record: Record[Any], settle: Settle, name: str, delays: Delays, is_again: bool
) -> None:
    container, process = record.data.whereabouts(name)
    guest = agent.guests.find(container, name, process)
    if guest is not None and is_meant(agent, record, guest):
        try:
            await settle(guest, record)
        except StaleRecordError:
            raise
        except AgentError as error:
            delays.say(name, str(error))
    elif process is not None and not agent.containers.is_alive(process):
        _log.warning("migration %s: process %d has ended before it was told of it", record.id, process.pid)
        if not _is_awaited(agent, record, container, name):
            agent.guests.stop_asking(container, name)
        agent.store.remember(record, pending=[one for one in record.data.pending if one != name])
    elif is_again:  # at first it may be about to connect
        delays.say(name, f"{whereabouts(record.data, name)} is not connected to the agent")


def is_meant(agent: ThisAgent, record: Record[Any], guest: Guest) -> bool:
    """Whether a guest of this name is the process that the record is about.

    A process that has moved away and come back has its name still, and may wait for another migration's end: a record
    that did not find room on the disk is found there as it was before that.
    """
    _, process = record.data.whereabouts(guest.name)
    return agent.containers.is_it(process, guest.process.pid)


def _is_awaited(agent: ThisAgent, record: Record[Any], container: str, name: str) -> bool:
    """Whether another migration waits for a process of this name to connect."""
    others = (one for one in agent.store.every() if one is not record and not one.is_settled)
    return any(one.data.is_about(container, name) for one in others)
