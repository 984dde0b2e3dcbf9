"""Processes with queue pairs that the guest library does not see: no checkpoint of their containers is possible.

A program that is linked statically, or brings a libibverbs that it loads past all others, works under the runtime as
it does under runc, and the first that anybody would hear of it is a checkpoint that is refused. So it is said before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from migrrdma_runtime.agent.local.containers import Containers, Process, ProcessId
from migrrdma_runtime.agent.local.guests import Guests
from migrrdma_runtime.agent.local.resources import Resources
from migrrdma_runtime.base.errors import AgentError

_log = logging.getLogger(__name__)

PERIOD_S = 30.0
"""Between two looks at the kernel's list of queue pairs: one command for all of them, a few milliseconds."""

_MAPPINGS_S = 3.0
"""What all containers' mappings together are waited for: somebody sits before `migrrdma status`."""

_GRACE_S = 5.0
"""What a process may take from its first queue pair to its guest's call: it calls again after an agent's restart."""


@dataclass(frozen=True)
class Stranger:
    """A process of a container, and how it has come by its queue pairs."""

    container: str
    process: Process
    libraries: tuple[str, ...] | None
    """The files of a libibverbs that it has mapped, as the container calls them; None: its mappings cannot be read."""

    @property
    def reason(self) -> str:
        """What would refuse a checkpoint, for the middle of a sentence."""
        return f"queue pairs without the guest library, {way_in(self.libraries)}"

    def as_message(self) -> dict[str, Any]:
        """What `migrrdma status` shows of it."""
        return {
            "container": self.container,
            "pid": self.process.pid,
            "command": self.process.command,
            "reason": self.reason,
        }


def way_in(libraries: tuple[str, ...] | None) -> str:
    """How a process that the guest library does not see uses RDMA, by what it has mapped."""
    if libraries is None:
        return "by a way that cannot be seen now: its mappings cannot be read"
    if not libraries:
        return "with a libibverbs that is linked statically"
    return f"through {' and '.join(libraries[:2])}, which it has loaded past the guest library"


def some_of_each_container(strangers: list[Stranger], most: int) -> list[Stranger]:
    """No more of one container than a person would look at: they must not hide the others'."""
    shown: Counter[str] = Counter()
    found = []
    for one in strangers:
        shown[one.container] += 1
        if shown[one.container] <= most:
            found.append(one)
    return found


class Strangers:
    """Looks for them."""

    def __init__(
        self,
        guests: Guests,
        containers: Containers,
        resources: Resources,
        is_parked: Callable[[ProcessId], bool] = lambda _: False,
    ) -> None:
        """``is_parked``: whether a process has let go of the agent, to be dumped, and is no stranger."""
        self._is_parked = is_parked
        self._guests = guests
        self._containers = containers
        self._resources = resources
        self._said: set[ProcessId] = set()

    async def look(self) -> list[Stranger]:
        """All that there are now; none where the kernel cannot be asked.

        Raises `AgentError` if the kernel's answer cannot be read.
        """
        holdings = await self._resources.holdings()
        if holdings is None:
            return []
        makers = {one.pid for one in holdings.pairs.values() if one.pid and not one.module}
        guests = {one.process.pid for one in self._guests.all()}
        found = await self._containers.looks.at("", self._among, makers, guests)
        if not found:
            return []
        # How long its mappings take is a container's own doing, and must not hide the others' strangers.
        looks = [asyncio.ensure_future(self._ways_in(container, found[container])) for container in found]
        try:
            await asyncio.wait(looks, timeout=_MAPPINGS_S)
        finally:
            for one in looks:
                one.cancel()
        seen = await asyncio.gather(*looks, return_exceptions=True)
        strangers = []
        for (container, processes), ways in zip(found.items(), seen, strict=True):
            known = [None] * len(processes) if isinstance(ways, BaseException) else ways
            strangers += [Stranger(container, *one) for one in zip(processes, known, strict=True)]
        return strangers

    async def watch(self, period: float = PERIOD_S, grace: float = _GRACE_S) -> None:
        """Look again and again, and log each process once, until cancelled."""
        while True:
            await asyncio.sleep(period)
            try:
                found = await self.look()
                if any(self._is_new(one) for one in found):
                    await asyncio.sleep(grace)
                    found = await self.look()
            except AgentError as error:
                _log.warning("processes without the guest library cannot be looked for: %s", error)
                continue
            # Once for all: there may be as many as there are processes.
            self._said = {one for one in self._said if self._containers.is_alive(one)}
            for one in found:
                self._say(one)

    def _is_new(self, stranger: Stranger) -> bool:
        return self._containers.identify(stranger.process.pid) not in self._said

    def _say(self, stranger: Stranger) -> None:
        who = self._containers.identify(stranger.process.pid)
        if who in self._said:
            return
        self._said.add(who)
        _log.warning(
            "%s of container %.12s has %s: a checkpoint of the container would be refused",
            stranger.process,
            stranger.container,
            stranger.reason,
        )

    def _among(self, makers: set[int], guests: set[int]) -> dict[str, list[Process]]:
        """Of threads that have made queue pairs, the processes in recorded containers without a guest, by container."""
        found: dict[str, list[Process]] = {}
        for pid in sorted({self._containers.process_of(one) for one in makers} - guests - {0}):
            container = self._containers.container_of(pid)
            if container and not self._is_parked(self._containers.identify(pid)):
                found.setdefault(container, []).append(self._containers.process(pid))
        return found

    async def _ways_in(self, container: str, processes: list[Process]) -> list[tuple[str, ...]]:
        def read() -> list[tuple[str, ...]]:
            return [self._containers.verbs_libraries(one.pid) for one in processes]

        return await self._containers.looks.at(container, read)
