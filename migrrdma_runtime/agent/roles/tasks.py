"""What goes on when its request has been answered: tasks, each of one migration.

One that *decides* about a migration (it conducts it, or undoes it) is waited for by whoever must know the outcome.
One that *follows* it (a partner's watch, a message that is repeated until it is heard) ends by itself when the
migration has.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

from migrrdma_runtime.base.errors import MigrRDMAError

_log = logging.getLogger(__name__)

Work = Coroutine[Any, Any, None]


class Tasks:
    """The tasks of every migration."""

    def __init__(self) -> None:
        self._deciding: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._following: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)

    def decide(self, migration: str, work: Work) -> None:
        """Go on with something that decides about a migration."""
        self._start(self._deciding, migration, work)

    def follow(self, migration: str, work: Work) -> None:
        """Go on with something that a migration has brought with it."""
        self._start(self._following, migration, work)

    async def decided(self, migration: str) -> None:
        """Wait for what was begun that decides about a migration."""
        await asyncio.gather(*self._deciding.get(migration, ()))

    async def stop(self) -> None:
        """Leave everything as it is; the store has what it takes to go on."""
        kinds = (self._deciding, self._following)
        tasks = [task for kind in kinds for group in kind.values() for task in group]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    def _start(groups: defaultdict[str, set[asyncio.Task[None]]], migration: str, work: Work) -> None:
        task = asyncio.get_running_loop().create_task(_logged(work))
        groups[migration].add(task)

        def ended(done: asyncio.Task[None]) -> None:
            groups[migration].discard(done)
            if not groups[migration]:
                del groups[migration]

        task.add_done_callback(ended)


async def _logged(work: Work) -> None:
    try:
        await work
    except MigrRDMAError as error:
        _log.error("%s", error)
    except Exception:  # noqa: BLE001 (whatever it is, nobody else would ever hear of it)
        _log.exception("in the background")
