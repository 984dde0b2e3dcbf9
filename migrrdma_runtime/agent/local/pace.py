"""How fast something may go on: so many at once, and then so many in a second."""

from __future__ import annotations


class Pace:
    """A bucket of ``burst`` that fills by ``per_second``; the times are those of one clock, in seconds."""

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._at: float | None = None

    def until_next(self, now: float) -> float:
        """In how many seconds the next one may be; 0: now."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        return 0.0 if self._left >= 1 else (1 - self._left) / self._per_second

    def spend(self) -> None:
        """One has been."""
        self._left -= 1
