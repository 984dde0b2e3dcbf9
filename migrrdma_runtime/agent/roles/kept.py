"""Lets go of what the OCI runtime has left for the agent, when nobody can restore the checkpoint any more.

Images are deleted by whoever asked for them, an engine or a person, but for the second names of some, which nobody else
knows of (``wire/kept_images.py``). The file that says that a dump succeeded is removed before; here once more, should
that have failed.
"""

from __future__ import annotations

import asyncio
import logging

from migrrdma_runtime.agent.roles.records import SourceData
from migrrdma_runtime.agent.roles.states import Role
from migrrdma_runtime.agent.roles.store import Change
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.wire import dump_outcome, kept_images

_log = logging.getLogger(__name__)


class Kept:
    """Told of every change of a record."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent

    def changed(self, change: Change) -> None:
        """Let go of what was kept for a migration that has ended."""
        if change.record.role is Role.SOURCE and change.record.is_final:
            self._forget(change.record.id)

    def recover(self) -> None:
        """After a start: let go of what the last agent left."""
        for pointer in self._agent.config.kept.iterdir():
            record = self._agent.store.find(pointer.name, SourceData)
            if record is None or record.is_final:
                self._forget(pointer.name)

    def _forget(self, migration: str) -> None:
        # Images are as large as an application's memory: removing them takes its time, and nobody waits for it.
        self._agent.tasks.follow(migration, asyncio.to_thread(self._forget_now, migration))

    def _forget_now(self, migration: str) -> None:
        outcome = self._agent.config.outcomes / migration
        if outcome.exists():
            dump_outcome.remove(str(outcome))
        pointer = self._agent.config.kept / migration
        try:
            kept_images.forget(str(pointer))
        except OSError as error:
            _log.warning("the images that %s names are not needed any more, but stay: %s", pointer, error)
