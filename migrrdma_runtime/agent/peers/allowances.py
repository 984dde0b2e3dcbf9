"""What one other agent may ask of this one: so much at once, and so much in a while.

Every agent of the cluster has its own, by its certificate. One that asks without end is refused, and the others do not
notice. The figures are far above what a host asks that moves a hundred containers at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from migrrdma_runtime.base.allowed_rate import Bucket, Rate
from migrrdma_runtime.base.errors import AllowanceError, BusyError, GuestError

_log = logging.getLogger(__name__)

UNDER_WAY = 256
"""Requests that are not answered yet; a *drain* takes as long as both ends need."""


REQUESTS = Rate(2000, 500)
"""A waiting partner asks one question in ``deadlines.ask`` seconds."""

BYTES = Rate(64 << 20, 1 << 20)
"""Of requests. A MiB takes a tenth of a second to be looked at, at most; the largest *prepare* seen had 4."""

SUSPENDS = Rate(256, 1)
"""Each has guests asked for their queue pairs, and leaves a record."""

QUESTIONS = Rate(4000, 500)
"""Where a queue pair is: one for each that is connected. Apart from the others, which no application may use up."""

UNFOUNDED = 16
"""As many as one *suspend* does one count that names queue pairs which nobody here has."""

_SAID_AGAIN_S = 60


class Allowance:
    """One agent's."""

    def __init__(self, peer: str, clock: Callable[[], float]) -> None:
        self._peer = peer
        self._clock = clock
        now = clock()
        self._requests, self._bytes, self._suspends, self._questions = (
            Bucket(rate, now) for rate in (REQUESTS, BYTES, SUSPENDS, QUESTIONS)
        )
        self._under_way = 0
        self._said = now - _SAID_AGAIN_S

    @contextmanager
    def request(self, name: str, size: int) -> Iterator[None]:
        """Carry a request of so many bytes out.

        If it is too much, nothing is done: `AllowanceError`, or `BusyError` for what is tried again by itself.
        """
        self._require(name, size)
        self._under_way += 1
        try:
            yield
        except GuestError:
            if name == "suspend":
                self._suspends.take(UNFOUNDED - 1)
            raise
        finally:
            self._under_way -= 1

    def _require(self, name: str, size: int) -> None:
        now = self._clock()
        if self._under_way >= UNDER_WAY:
            raise self._refusal(AllowanceError, f"{self._under_way} requests under way", 0)
        requests = self._questions if name == "where" else self._requests
        if seconds := requests.missing(1, now):
            raise self._refusal(AllowanceError, "too many requests", seconds)
        requests.take(1)
        if seconds := self._bytes.missing(size, now):
            raise self._refusal(AllowanceError, "too many bytes of requests", seconds)
        self._bytes.take(size)
        if name == "suspend":
            if seconds := self._suspends.missing(1, now):
                # A checkpoint that is refused so waits for its turn.
                raise self._refusal(BusyError, "suspended too often, or what nobody here has", seconds)
            self._suspends.take(1)

    def _refusal(
        self, kind: type[AllowanceError | BusyError], what: str, seconds: float
    ) -> AllowanceError | BusyError:
        error = kind(
            f"agent {self._peer} has asked more of this one than an agent may ({what}): try again"
            + (f" in {seconds:.1f} s" if seconds else " when some have been answered")
        )
        now = self._clock()
        if now - self._said >= _SAID_AGAIN_S:  # as often as it asks would fill the log
            _log.warning("%s", error)
            self._said = now
        return error


class Allowances:
    """Everybody's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of: dict[str, Allowance] = {}

    def of(self, peer: str) -> Allowance:
        """The one of an agent, by the name in its certificate."""
        return self._of.setdefault(peer, Allowance(peer, self._clock))
