"""The agent of this host, as the mover asks it: how a checkpoint stands, and that one has come to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from migrrdma_runtime.base.errors import RefusedError
from migrrdma_runtime.wire import runtime_client
from migrrdma_runtime.wire.agent_messages import Message
from migrrdma_runtime.wire.runtime_client import Agent

T = TypeVar("T")

COMMITTED = ("committed", "done")
"""The states of either end once the destination is the authority."""


class AgentHere:
    """Asks in a thread, each time on a connection of its own: it may have been restarted in between.

    Every method raises `AgentError`; `UnreachableError` if it does not run.
    """

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir

    async def look_at(self, container: str) -> Message:
        """What of a container would refuse a move (`runtime_client.Agent.examine`)."""
        return await self._ask(lambda agent: agent.examine(container))

    async def take_back(self, move: str) -> tuple[bool, str]:
        """Have it come to nothing: whether it has, and the state of its checkpoint."""
        answer = await self._ask(lambda agent: agent.take_back(move))
        return bool(answer["taken_back"]), str(answer["state"])

    async def restored(self, container: str) -> Message | None:
        """What is known of the last restore of a container here."""
        found = (await self._ask(lambda agent: agent.status()))["migrations"]
        mine = [one for one in found if one["role"] == "destination" and one.get("container") == container]
        return max(mine, key=lambda one: float(one["updated"]), default=None)

    async def give_back(self, migration: str) -> None:
        """Give a restore up that is under way; one that is committed is not given up."""
        try:
            await self._ask(lambda agent: agent.abandon(migration, lost=False, role="destination"))
        except RefusedError:
            return

    async def _ask(self, question: Callable[[Agent], T]) -> T:
        def asked() -> T:
            with runtime_client.connect(self._run_dir) as agent:
                return question(agent)

        return await asyncio.to_thread(asked)
