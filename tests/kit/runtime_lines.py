"""What an OCI runtime says to the agent of its host and hears, without a thread for each: for many at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any


class RuntimeLines:
    """The connections of one runtime."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._writers: list[asyncio.StreamWriter] = []

    async def say(self, request: Any) -> Any:
        """The line that answers, after those that only say how it goes on."""
        reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=1 << 24)
        self._writers.append(writer)
        writer.write(json.dumps(request).encode() + b"\n")
        while line := await reader.readline():
            answer = json.loads(line)
            if answer.keys() & {"ready", "done", "error"}:
                return answer
        raise AssertionError("the agent hung up")

    async def report(self, ready: Any, *, succeeded: bool = True) -> Any:
        """How our part went; the answer is the last of what was asked for first."""
        migration = ready["ready"]["migration"]
        return await self.say({"op": "report", "migration": migration, "succeeded": succeeded, "steps": []})

    async def close(self) -> None:
        """Hang up."""
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
