"""What keeps a migration from its end, in the log: once, and not every few seconds, and with the way out of it."""

from __future__ import annotations

import logging

from migrrdma_runtime.agent.roles import outlook
from migrrdma_runtime.agent.roles.records import AnyRecord
from migrrdma_runtime.agent.roles.this_agent import ThisAgent

_log = logging.getLogger(__name__)


class Delays:
    """Of one record, as long as somebody tries to end it."""

    def __init__(self, agent: ThisAgent, record: AnyRecord) -> None:
        self._agent = agent
        self._record = record
        self._said: dict[str, str] = {}

    def say(self, whom: str, why: str) -> None:
        """Why the migration waits for one of those it waits for, unless that was said before."""
        if self._said.get(whom) == why:
            return
        self._said[whom] = why
        way_out = outlook.way_out(self._record, self._agent.config.deadlines)
        _log.warning("migration %s waits: %s. Way out: %s", self._record.id, why, way_out)
