"""Lets go of the images that the OCI runtime has kept, when nobody can restore them any more.

Most are deleted by whoever asked for them, an engine or a person; these are second names that nobody else knows of
(``wire/kept_images.py``).
"""

from __future__ import annotations

import asyncio
import logging

from migrrdma_runtime.agent.roles.records import SourceData
from migrrdma_runtime.agent.roles.states import Role
from migrrdma_runtime.agent.roles.store import Change
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.wire import kept_images

_log = logging.getLogger(__name__)


class KeptImages:
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
        pointer = self._agent.config.kept / migration
        try:
            kept_images.forget(str(pointer))
        except OSError as error:
            _log.warning("the images that %s names are not needed any more, but stay: %s", pointer, error)
