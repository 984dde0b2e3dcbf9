"""One move while it is under way: what it is of, what is known of it, and who watches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrrdma_runtime.base.errors import UnreachableError
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.engine import Container, Engine
from migrrdma_runtime.engine.mounts import Mount
from migrrdma_runtime.mover.book import Departing
from migrrdma_runtime.mover.dump import LowLevel
from migrrdma_runtime.wire.agent_messages import Contact, Message

Watcher = Callable[[Message], None]
"""Told of everything that happens to a move: one event at a time, ready for JSON."""


@dataclass
class Journey:
    """One move while it is under way."""

    departing: Departing
    options: Message
    watcher: Watcher
    description: Description
    container: Container
    engine: Engine
    low_level: LowLevel
    folder: Path
    task: asyncio.Task[Any] | None = None
    cancelled: str = ""
    steps: list[Message] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    expected: float = 0.0
    """Seconds that it was expected to stand still when it was stopped; 0: nothing of its memory had gone ahead."""
    mapped: set[str] = field(default_factory=set)
    """Files that are sent once more, as their times do not say whether they have changed (mapped.py)."""
    mounts: list[Mount] = field(default_factory=list)
    """Volumes and folders that go along."""
    targets: dict[str, list[str]] = field(default_factory=dict)
    """Of each of these, by where it is mounted: all the places where the container has it."""
    nameless: list[str] = field(default_factory=list)
    """Of these the volumes without a name of the user's, which the engine there makes anew."""
    guests: list[str] = field(default_factory=list)
    """Versions of the guest library that its processes run and that are not there."""
    has_image: bool = False
    """The image is there."""
    layers: int = 0
    """So many of its lowest layers are."""

    @property
    def id(self) -> str:
        """Its name."""
        return self.departing.id

    @property
    def there(self) -> Contact:
        """The mover it goes to."""
        return Contact(**self.departing.destination)

    @property
    def steps_end_well(self) -> bool:
        """The ones that it stood still in are known by their times."""
        return {"draining and dumping", "restoring there"} <= {step["name"] for step in self.steps}

    @contextlib.asynccontextmanager
    async def step(self, name: str, *, may_end: bool = True) -> AsyncGenerator[None, None]:
        """A step of it, for whoever watches and for the receipt; it ends by its deadline if one was asked for."""
        begin, limit = time.time(), self.options.get("timeout", 0) if may_end else 0
        self.watcher({"move": self.id, "step": name, "state": "begun"})
        try:
            async with asyncio.timeout(limit or None) as deadline:
                yield
        except BaseException as error:
            self.watcher({"move": self.id, "step": name, "state": "failed", "seconds": time.time() - begin})
            if isinstance(error, TimeoutError) and deadline.expired():
                raise UnreachableError(
                    f"{name} took longer than {limit:g} s, which --timeout allows each step"
                ) from None
            raise
        seconds = time.time() - begin
        self.steps.append({"name": name, "start": begin, "seconds": seconds})
        self.watcher({"move": self.id, "step": name, "state": "done", "seconds": seconds})

    async def counted(
        self, what: str, chunks: AsyncGenerator[bytes, None], total: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """The same bytes, of which whoever watches sees how many have been sent."""
        begin = said = time.monotonic()
        self.sent[what] = 0
        limit = self.options.get("bandwidth", 0)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk
                self.sent[what] += len(chunk)
                if limit and (early := self.sent[what] / limit - (time.monotonic() - begin)) > 0:
                    await asyncio.sleep(early)
                if time.monotonic() - said > 0.2:
                    said = time.monotonic()
                    self.watcher({"move": self.id, "sending": what, "bytes": self.sent[what], "total": total})
        self.watcher({"move": self.id, "sending": what, "bytes": self.sent[what], "total": total})
