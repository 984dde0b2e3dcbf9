"""Memory that goes ahead, round by round, while the application runs, until the rest fits the downtime asked for.

After a round the kernel marks what is written to (``shim/page_marks.py``), and the next round has only that. What a
device has pinned stays marked all the time: each round would send it again, and so only the last dump does. What
devices write the kernel does not see; the runtime cares for that in the last dump (``shim/nic_writes.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_ROUNDS = 8
"""Unless more are asked for."""
WORTH_ROUNDS = 64 << 20
"""Bytes: of less memory nothing goes ahead unless that is asked for; a round costs the application a short stop."""

_GAIN = 0.1
"""A round that would leave less than so much of what is marked now less to send is not worth its bytes."""


@dataclass(frozen=True)
class Round:
    """What one round was, and what there is to do after it."""

    number: int
    bytes: int
    """That it has sent."""
    dumped: float
    """Seconds that its dump took, in a part of which the application stood still."""
    sent: float
    """Seconds that sending it took."""
    stays: int
    """Bytes that were marked right behind it: devices hold them, and no round makes them fewer."""
    marked: int
    """Bytes that were marked when it had been sent."""

    @property
    def rate(self) -> float:
        """Bytes a second of the whole way from memory to the other host."""
        return self.bytes / max(self.dumped + self.sent, 1e-3)

    @property
    def dirty_rate(self) -> float:
        """Bytes a second that the application writes to, each page once."""
        return max(0, self.marked - self.stays) / max(self.sent, 1e-3)


class Rounds:
    """Whether one more round pays, told from the ones before."""

    def __init__(self, most: int, downtime: float, least: float = 0.0) -> None:
        """At most so many rounds; ``downtime`` in seconds is what the last step may take.

        ``least``: seconds that it takes however little is left, as moves before have shown; 0: none has.
        """
        self._most = most
        self._downtime = downtime
        self._least = least
        self.done: list[Round] = []

    @property
    def next(self) -> int:
        """The next one's number, from 1."""
        return len(self.done) + 1

    def expected(self, marked: int = -1) -> float:
        """Seconds that it would stand still, were it stopped with so many bytes marked, or as after the last round.

        If no move before has shown what a dump and a restore cost, each costs what the quickest dump of a round has.
        """
        left = self.done[-1].marked if marked < 0 else marked
        fastest = max(one.rate for one in self.done)
        least = self._least or 2 * min(one.dumped for one in self.done)
        return least + left / max(fastest, 1.0)

    def fits(self, marked: int = -1) -> bool:
        """Whether that is within the downtime asked for."""
        return self.expected(marked) <= self._downtime

    def go_on(self, marked: int = -1) -> bool:
        """Whether another round is worth while, with so many bytes marked now."""
        if not self.done:
            return self._most > 0
        left = self.done[-1].marked if marked < 0 else marked
        if len(self.done) >= self._most or self.fits(left):
            return False
        if left - self.done[-1].stays < _GAIN * left:
            return False
        before = self.done[-2].marked if len(self.done) > 1 else self.done[0].bytes
        return left < (1 - _GAIN) * before
