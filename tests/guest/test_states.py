"""Queue pairs whose state the application changes while they are moved, and what of their work waits then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import GUEST_INCLUDES, Built, compile_c


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

    def make(self, **sides: int) -> None:
        """Make QPs of these names."""
        for name, side in sides.items():
            self.numbers[name] = int(self.tell(f"make {name} {side}"))
            self.sides[name] = side

    def connect(self, *pairs: str) -> None:
        """Make and connect pairs of QPs, the first of each on side 0 and the second on side 1."""
        for one, other in map(tuple, pairs):
            self.make(**{one: 0, other: 1})
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


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("states") / "states"
    compile_c(program, GUEST_INCLUDES, Path(__file__).with_name("states.c"), "-libverbs", "-pthread")
    return program


@pytest.fixture
def shell(states: Path, built: Built, agent: Agent, tmp_path: Path) -> Iterator[Shell]:
    environment = {**built.environment, **agent.environment}
    # Posting executes: what a command has posted has completed when it answers.
    del environment["FAKE_ASYNC"]
    shell = Shell(states, environment, tmp_path / "log")
    with shell:
        agent.diagnosis = shell.diagnosis
        agent.accept()
        yield shell


@pytest.mark.parametrize("threads", [4, 20])
def test_queue_that_one_thread_uses_alone_is_fast_again_after_any_number_of_owners(
    shell: Shell, agent: Agent, threads: int
) -> None:
    shell.connect("AB")
    shell.do(f"recv B {threads} threads")
    assert shell.tell("fast recv B") == "1"
    shell.tell(f"poll 0 {threads}")
    assert shell.tell("fast 0") == "1"
    agent.quiesce()
    agent.resume()
    assert shell.tell("fast 0") == "1"
