"""How long each step of a migration took, on which host: what ``migrrdma status`` and the demo show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from migrrdma_runtime.wire.agent_messages import Step


class Timeline:
    """The steps so far.

    Lengths are of the monotonic clock; starts are of the wall clock, to set hosts side by side.
    """

    def __init__(self, host: str, steps: list[Step] | None = None) -> None:
        self._host = host
        self.steps: list[Step] = list(steps or [])

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what happens inside; a step that fails is in the timeline as well."""
        wall, start = time.time(), time.monotonic()
        try:
            yield
        finally:
            self.add(name, wall, time.monotonic() - start)

    def add(self, name: str, start: float, seconds: float) -> None:
        """Add a step that somebody else has measured."""
        self.steps.append({"name": name, "host": self._host, "start": start, "seconds": max(0.0, seconds)})

    def add_all(self, steps: list[dict[str, Any]]) -> None:
        """Add steps that the runtime of this host has measured."""
        for one in steps:
            self.add(one["name"], one["start"], one["seconds"])
