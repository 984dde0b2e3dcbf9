"""What goes on when its request has been answered: tasks, each of one migration.

One that *decides* about a migration (it conducts it, or undoes it) is waited for by whoever must know the outcome.
One that *follows* it (a partner's watch, a message that is repeated until it is heard) ends by itself when the
migration has.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from migrrdma_runtime.base.errors import MigrRDMAError

_log = logging.getLogger(__name__)

Work = Coroutine[Any, Any, None]

_Groups = defaultdict[str, set["asyncio.Future[None]"]]
"""What is under way, by migration."""


class Tasks:
    """The tasks of every migration."""

    def __init__(self) -> None:
        self._deciding: _Groups = defaultdict(set)
        self._following: _Groups = defaultdict(set)

    def decide(self, migration: str, work: Work) -> None:
        """Go on with something that decides about a migration."""
        self._start(self._deciding, migration, work)

    def follow(self, migration: str, work: Work) -> asyncio.Task[None]:
        """Go on with something that a migration has brought with it; what is raised is logged."""
        return self._start(self._following, migration, work)

    @contextmanager
    def conducting(self, migration: str) -> Iterator[None]:
        """Count a request that decides about a migration among what is waited for."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(self._deciding, migration, ended)
        try:
            yield
        finally:
            if not ended.done():
                ended.set_result(None)

    async def decided(self, migration: str) -> None:
        """Wait for what was begun that decides about a migration."""
        if group := self._deciding.get(migration):
            await asyncio.wait(set(group))

    async def stop(self) -> None:
        """Leave everything as it is; the store has what it takes to go on."""
        kinds = (self._deciding, self._following)
        tasks = [task for kind in kinds for group in kind.values() for task in group]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, groups: _Groups, migration: str, work: Work) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_logged(work))
        task.add_done_callback(lambda _: work.close())  # also of one that is stopped before it has begun
        self._add(groups, migration, task)
        return task

    @staticmethod
    def _add(groups: _Groups, migration: str, work: asyncio.Future[None]) -> None:
        groups[migration].add(work)

        def ended(done: asyncio.Future[None]) -> None:
            groups[migration].discard(done)
            if not groups[migration]:
                del groups[migration]

        work.add_done_callback(ended)


async def _logged(work: Work) -> None:
    try:
        await work
    except MigrRDMAError as error:
        _log.error("%s", error)
    except Exception:  # noqa: BLE001 (whatever it is, nobody else would ever hear of it)
        _log.exception("in the background")
