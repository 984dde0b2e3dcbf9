"""``tests/guest/states.c``, a small shell for verbs, as the tests that drive it see it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from guest_agent import Program

RESET, INIT, RTR, RTS, SQD, ERR = 0, 1, 2, 3, 4, 6


class Shell(Program):
    """``states.c``. Sides 0 and 1 are the contexts 1 and 2."""

    def __init__(self, program: Path, environment: Mapping[str, str], log: Path) -> None:
        super().__init__([program], environment, log)
        self.numbers: dict[str, int] = {}
        self.sides: dict[str, int] = {}

    def do(self, *commands: str) -> None:
        """Tell it to do these, each of which must succeed."""
        for command in commands:
            answer = self.tell(command)
            assert answer == "ok", f"{command}: {answer}"

    def make(self, domain: int = 0, /, **sides: int) -> None:
        """Make QPs of these names, in the first protection domain of their sides or in the second."""
        for name, side in sides.items():
            self.numbers[name] = int(self.tell(f"make {name} {side} {domain}"))
            self.sides[name] = side

    def connect(self, *pairs: str, domain: int = 0) -> None:
        """Make and connect pairs of QPs, the first of each on side 0 in that domain and the second on side 1."""
        for one, other in map(tuple, pairs):
            self.make(domain, **{one: 0})
            self.make(**{other: 1})
            self.join(one, other)
            self.join(other, one)

    def join(self, one: str, other: str) -> None:
        """Connect this end to that one."""
        self.do(f"init {one}", f"rtr {one} {other}", f"rts {one}")

    def poll(self, side: int) -> str:
        """Everything that has completed there: ``A:recv:0:3``, the QP, what, its status and its number."""
        *completions, end = self.tell(f"poll {side}").split()
        assert end == "ok"
        return " ".join(completions)

    def state(self, name: str) -> int:
        return int(self.tell(f"state {name}"))
