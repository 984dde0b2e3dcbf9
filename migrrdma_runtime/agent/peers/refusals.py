"""What is logged of refused requests: who asks without end is not to fill the disk with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from migrrdma_runtime.base.allowed_rate import Bucket, Rate

_log = logging.getLogger(__name__)

LINES = Rate(100, 0.1)
"""Of one agent: as many as a host meets that moves a hundred containers at once, then one in ten seconds."""


class Refusals:
    """Logs them, each agent's own. The metrics have all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, Bucket] = {}
        self._unsaid: dict[str, int] = {}

    def say(self, caller: str, request: str, error: Exception) -> None:
        """Log that a request was refused, and how many of this caller's were since the last line; or only count it."""
        now = self._clock()
        left = self._left.setdefault(caller, Bucket(LINES, now))
        if left.missing(1, now):
            self._unsaid[caller] = self._unsaid.get(caller, 0) + 1
            return
        left.take(1)
        unsaid = self._unsaid.pop(caller, 0)
        more = f" (and {unsaid} more of its requests before)" if unsaid else ""
        _log.info("%s from %s refused: %s%s", request, caller, error, more)
