"""Whose the queue pairs of this host are, by the kernel's word.

A guest says which queue pairs it has. That it has them is what the kernel says: nldev's ``RDMA_NLDEV_CMD_RES_QP_GET``,
of which ``rdma -j resource show qp`` gives every member as JSON. iproute2 has that program wherever there is RDMA;
pyverbs does not ask nldev, and no library that does is in both Debian 12 and 13.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Context, QueuePair
from migrrdma_runtime.agent.local.shared_look import SharedLook
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.base.escaping import printable

_log = logging.getLogger(__name__)

COMMAND = ("rdma", "-j", "resource", "show", "qp")

_DEADLINE_S = 10


@dataclass(frozen=True)
class Owned:
    """A queue pair as the kernel has it."""

    pid: int
    """The thread that has made it; 0: it has ended, and the kernel does not say."""
    peer: int | None
    """The number of the queue pair at the other end, if it has one."""
    module: str = ""
    """The kernel's own part that has made it: no process's then."""
    takes_datagrams: bool = False


@dataclass(frozen=True)
class Holdings:
    """The queue pairs of this host."""

    pairs: dict[tuple[str, int], Owned]
    """By device and number."""
    containers: Containers
    devices: Devices
    _known: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Process and container of each thread."""

    def objection(self, guest: Guest, contexts: Sequence[Context], pair: QueuePair) -> str:
        """Why this queue pair is not the guest's; empty: it is, for all that the kernel says."""
        device = next((one.real_device for one in contexts if one.id == pair.name.context), "")
        what = f"QP 0x{pair.pqpn:x} of {device or 'no device'}"
        found = self.pairs.get((device, pair.pqpn))
        if found is None:
            return f"{guest} lists {what}, which the kernel does not have"
        if found.module:
            return f"{guest} lists {what}, which is the kernel's own ({printable(found.module)})"
        if found.pid and not self._is_of(found.pid, guest):
            whose = self.containers.process(found.pid)
            return f"{guest} lists {what}, which is {whose}'s by the kernel's word"
        if pair.is_connected and found.peer not in (None, pair.dest_pqpn):
            return (
                f"{guest} lists {what} as connected to QP 0x{pair.dest_pqpn:x}, which the kernel has connected to "
                f"QP 0x{found.peer or 0:x}"
            )
        if pair.is_connected and not self._has_gid(device, pair):
            return f"{guest} lists {what} at GID {gids.shown(pair.sgid)}, which is not that device's"
        return ""

    def is_made_by(self, guest: Guest, device: str, number: int) -> bool:
        """Whether the kernel says so; of one whose thread has ended it does not say whose it is."""
        return self.is_made_in(guest.container, (guest.process.pid,), device, number)

    def is_made_in(self, container: str, processes: Collection[int], device: str, number: int) -> bool:
        """Whether one of these processes has made it, or another one in their container; likewise."""
        found = self.pairs.get((device, number))
        return found is not None and bool(found.pid) and self._is_in(found.pid, container, processes)

    def possible_holders(self, guests: Sequence[Guest], numbers: set[int]) -> list[Guest]:
        """The guests of which a queue pair of one of these numbers may be."""
        return self._holders(
            guests,
            {one.pid for (_, number), one in self.pairs.items() if number in numbers and not one.module},
        )

    def who_takes_datagrams(self, guests: Sequence[Guest]) -> list[Guest]:
        """The guests that may have a queue pair for datagrams, without which nobody sends any."""
        return self._holders(
            guests, {one.pid for one in self.pairs.values() if one.takes_datagrams and not one.module}
        )

    def _holders(self, guests: Sequence[Guest], pids: set[int]) -> list[Guest]:
        return [guest for guest in guests if 0 in pids or any(self._is_of(pid, guest) for pid in pids)]

    def _is_of(self, pid: int, guest: Guest) -> bool:
        """Whether the thread is of the guest's process or container: a child goes on with what its parent has made."""
        return self._is_in(pid, guest.container, (guest.process.pid,))

    def _is_in(self, thread: int, container: str, processes: Collection[int]) -> bool:
        if thread not in self._known:
            self._known[thread] = (self.containers.process_of(thread), self.containers.container_of(thread))
        process, its_container = self._known[thread]
        return process in processes or (bool(container) and its_container == container)

    def _has_gid(self, device: str, pair: QueuePair) -> bool:
        # Its place first: a table may have a thousand entries, of which each is a file.
        entry = self.devices.entry(device, pair.port, pair.sgid_index)
        if entry is not None and gids.packed(entry.gid) == gids.packed(pair.sgid):
            return True
        return any(gids.packed(one.gid) == gids.packed(pair.sgid) for one in self.devices.gid_table(device))


class Resources:
    """Asks the kernel."""

    def __init__(self, containers: Containers, devices: Devices, command: Sequence[str] = COMMAND) -> None:
        self._containers = containers
        self._devices = devices
        self._command = command
        self._said = ""
        self._has_answered = False
        self._shared = SharedLook(self._look)

    async def holdings(self) -> Holdings | None:
        """All queue pairs of this host; None: the kernel cannot be asked, and the guests' word is all there is."""
        return await self._shared()

    async def _look(self) -> Holdings | None:
        try:
            said = await self._ask()
            try:
                pairs = _parse(said)
            except ValueError as error:
                if self._has_answered:
                    # A thread's name is in it: a host where this works is not to be talked out of it by one.
                    raise AgentError(
                        f"what {' '.join(self._command)} says cannot be read: {error}"
                    ) from error
                raise
            self._has_answered = True
        except (OSError, ValueError, TimeoutError) as error:
            reason = str(error) or f"no answer within {_DEADLINE_S} s"
            if reason != self._said:  # once: it will not change by itself
                _log.warning("whose queue pairs are cannot be learnt from the kernel: %s", reason)
            self._said = reason
            return None
        return Holdings(pairs, self._containers, self._devices)

    async def _ask(self) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_DEADLINE_S):
                said, errors = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode:
            raise ValueError(f"{' '.join(self._command)}: {errors[:200].decode(errors='replace').strip()!r}")
        return said


_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def _as_json_has_it(escape: re.Match[str]) -> str:
    """Some releases of iproute2 write a quotation mark in a thread's name as no JSON has it."""
    return "'" if escape[1] == "'" else escape[0]


def _parse(said: bytes) -> dict[tuple[str, int], Owned]:
    """What ``rdma`` says; `ValueError` if it is something else. It says nothing at all where there is no device."""
    entries: Any = json.loads(
        _ESCAPE.sub(_as_json_has_it, said.decode(errors="replace")) or "[]", strict=False
    )
    try:
        return {
            (str(one["ifname"]), int(one["lqpn"])): Owned(
                int(one.get("pid", 0)),
                int(one["rqpn"]) if "rqpn" in one else None,
                # A thread that has ended has no name either.
                "" if "pid" in one else str(one.get("comm", "")),
                one.get("type") == "UD",
            )
            for one in entries
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a list of queue pairs: {said[:60]!r}") from error
