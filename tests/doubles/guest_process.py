"""A fake guest (fake_guest.py) as the test that has started it sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

PATIENT_S = 120
"""For anything that should happen at once: a guard against hanging, not a measure."""


class GuestProcess:
    """A fake guest."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.name = name
        self.events: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._reader = asyncio.ensure_future(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def asked(self) -> list[str]:
        """What the agent has asked of it, in order."""
        return [event["got"] for event in self.events if "got" in event]

    async def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENT_S), self._changed:
            await self._changed.wait_for(condition)

    async def until_asked(self, name: str) -> None:
        await self.until(lambda: name in self.asked)

    async def show(self) -> dict[str, Any]:
        count = len(self._shown())
        await self.tell("show")
        await self.until(lambda: len(self._shown()) > count)
        return self._shown()[-1]

    async def ask(self, gid: str, qpn: int, own: str, vqpn: int, pqpn: int = 0, now: str = "") -> Any:
        """Where a queue pair is, as its agent answers a queue pair of its own; GIDs in hexadecimal."""
        count = sum("there" in event for event in self.events) + 1
        await self.tell(f"ask {gid} {qpn} {own} {vqpn} {now or own} {pqpn or vqpn}")
        await self.until(lambda: sum("there" in event for event in self.events) == count)
        return [event for event in self.events if "there" in event][-1]

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader

    def _shown(self) -> list[dict[str, Any]]:
        return [event["shown"] for event in self.events if "shown" in event]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            async with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
