"""Have the homes of what has gone on from here, by the GIDs that it is known by, know where it is now."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from migrrdma_runtime.agent.peers.agent_config import host_of
from migrrdma_runtime.agent.roles.records import SourceRecord
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.base.errors import AgentError, UnreachableError
from migrrdma_runtime.wire.agent_messages import Message

_log = logging.getLogger(__name__)

_TOLD_AT_MOST = 60
"""Times that a home is told where a process has gone on to: by the chain it is found all the same."""


async def tell_the_homes(agent: ThisAgent, record: SourceRecord) -> None:
    """Have the homes of what has gone on from here ask there and not here; by the chain it is found as well."""
    holder = record.data.holder
    by_home: dict[str, list[Message]] = {}
    for process, known in record.data.names.items():
        for gid in known:
            with suppress(AgentError):
                home = agent.config.agent_for(gid)
                if host_of(home) not in agent.identity.addresses:
                    by_home.setdefault(home, []).append({"gid": gid, "process": process})

    async def tell(home: str, names: list[Message]) -> None:
        for _ in range(_TOLD_AT_MOST):
            try:
                contact = await agent.greet(home)
                if contact.name != agent.identity.name and holder is not None:
                    request, limit = (
                        {"agent": holder.as_message(), "names": names},
                        agent.config.deadlines.peer,
                    )
                    await agent.transport.ask(contact.address, "moved_on", request, limit, contact.name)
            except UnreachableError as error:
                _log.info("%s", error)
                await asyncio.sleep(agent.config.deadlines.ask)
            except AgentError as error:
                _log.info("%s", error)
                return
            else:
                return

    await asyncio.gather(*(tell(home, names) for home, names in by_home.items()))
