"""How much of something may be: so much at once, and so much that comes back each second."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """How much at once, and how much of it comes back each second."""

    most: float
    each_second: float


class Bucket:
    """What is left of it; the times are those of one clock, in seconds."""

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left = rate.most
        self._since = now

    def missing(self, amount: float, now: float) -> float:
        """In how many seconds there is as much; 0: there is."""
        self._left = min(self._rate.most, self._left + (now - self._since) * self._rate.each_second)
        self._since = now
        return max(0.0, (min(amount, self._rate.most) - self._left) / self._rate.each_second)

    def take(self, amount: float) -> None:
        """Take it, also more than there is: then what comes back pays for it first."""
        self._left = max(-self._rate.most, self._left - amount)
