"""Who connects to a process that has moved, by what it gave out before, reaches it; and so it is while it moves.

`tests/workloads/comers.c` looks at every byte. That an end is away for a while is all that may be seen of a move.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from guest_build import ROOT, compile_c
from migrrdma_lab.errors import RackError
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import NODES
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer

_FOLDER = "/root/comers"

_PATIENT_S = 600
"""For what comes in a moment, on however busy a machine."""

_BEING_MADE = "|".join(
    (
        "no process with the guest library has",
        "came or went while",
        "is just being connected to",
        "which the kernel does not have",
        "In-flight connection",  # of TCP: somebody waits to be accepted
    )
)
"""A connection of which one end is ready and the other is not, or not any more: such a moment refuses a move."""

_SOUND = r"listening|(round|served) |lost \d+: nobody there"


def _unsound(container: RuntimeContainer) -> list[str]:
    return [line for line in container.lines() if not re.match(_SOUND, line)]


@dataclass
class _Crowd:
    """Containers that offer connections, and as many others that come to all of those in turn."""

    nodes: list[Shell]
    pairs: int
    there: dict[str, RuntimeContainer] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    """What was wrong on the nodes that they have left."""

    @property
    def names(self) -> list[str]:
        """Of all of them."""
        return [f"{kind}-{number}" for number in range(self.pairs) for kind in ("serves", "asks")]

    def prepare(self) -> None:
        self.remove()
        for name in self.names:
            for node in self.nodes:
                self._container(node, name).prepare()

    def remove(self) -> None:
        for name in self.names:
            for node in self.nodes:
                self._container(node, name).remove()

    def add(self, name: str, node: int) -> None:
        container = self.there[name] = self._container(self.nodes[node], name).run()
        if name.startswith("serves"):
            container.wait_for_line("^listening$")

    def move(self, name: str, node: int) -> None:
        """Move it at a moment at which it can be."""
        container = self.there[name]
        while True:
            try:
                container.checkpoint()
            except RackError as error:
                if not re.search(_BEING_MADE, str(error)):
                    raise
            else:
                break
        self.said += _unsound(container)
        container.remove()
        self.there[name] = container.restore(self.nodes[node])

    def all_go_on(self) -> None:
        """Whoever asks is answered again, and nothing was wrong: an end was there, or it was not."""
        for name, one in self.there.items():
            if name.startswith("asks"):
                one.wait_for_line("^round ", _PATIENT_S, after=len(one.lines()))
        bad = [*self.said, *(line for one in self.there.values() for line in _unsound(one))]
        assert not bad, bad

    def _container(self, node: Shell, name: str) -> RuntimeContainer:
        kind, number = name.split("-")
        first = int(number)
        addresses = [f"10.78.0.{220 + 2 * one}" for one in range(self.pairs)]
        command = ["serve"] if kind == "serves" else ["ask", *addresses[first:], *addresses[:first]]
        own = f"10.78.0.{220 + 2 * first + (kind == 'asks')}"
        return RuntimeContainer(node, name, own, ["/mnt/comers", *command], [(_FOLDER, "/mnt")])


MakeCrowd = Callable[[int], _Crowd]


def _configure(node: Shell, text: str) -> None:
    node.run("tee", "/etc/migrrdma/agent.toml", stdin=text.encode())
    node.run("systemctl", "restart", "migrrdma-agent")


@pytest.fixture
def crowd(rack: FastRack, src: Shell, dst: Shell, peer: Shell, tmp_path: Path) -> Iterator[MakeCrowd]:
    """A crowd of so many of each kind, on devices that hand no number out again at once.

    The rack's do otherwise. Whoever comes then to where another has gone from gets its very numbers, and of two that
    are called the same, and are both free, neither is connected to.
    """
    control = rack.devices.daemon.control
    for each in NODES:
        control.set(each.name, "reuse_numbers", 0)
    program = tmp_path / "comers"
    compile_c(program, ROOT / "tests/workloads/comers.c", "-libverbs")
    for shell in (src, dst, peer):
        shell.run("mkdir", "-p", _FOLDER)
        shell.copy(str(program), f":{_FOLDER}/comers")
    for node in (src, dst, peer):
        _configure(node, "late_comers = true\n")
    made: list[_Crowd] = []

    def make(pairs: int) -> _Crowd:
        made.append(_Crowd([src, dst, peer], pairs))
        made[-1].prepare()
        return made[-1]

    yield make
    for one in made:
        one.remove()
    for node in (src, dst, peer):
        _configure(node, "")
    for each in NODES:
        control.set(each.name, "reuse_numbers", 1)


def test_by_names_of_before_a_move(crowd: MakeCrowd) -> None:
    """By numbers that it gave out where it was, and when those are used up by others, with the GID of before."""
    few = crowd(1)
    few.add("serves-0", 0)
    few.move("serves-0", 1)
    few.add("asks-0", 2)
    # More than the other end has made before it moved; one is lost, and has no such line, if nobody takes it for 5 s.
    few.there["asks-0"].wait_for_line("^round (1[2-9]|[2-9][0-9])$", _PATIENT_S)
    few.all_go_on()


def test_both_ends_move_and_their_hosts_are_used_again(crowd: MakeCrowd) -> None:
    """Away, on, and home again, while connections are made; beside others that have come to where they were."""
    few = crowd(2)
    few.add("serves-0", 0)
    few.move("serves-0", 1)
    few.add("serves-1", 0)
    few.add("asks-0", 2)
    few.add("asks-1", 2)
    for who, where in (("asks-0", 0), ("serves-0", 2), ("serves-0", 0), ("asks-0", 1)):
        few.all_go_on()
        few.move(who, where)
    few.all_go_on()


@pytest.mark.timeout(14400)
@pytest.mark.parametrize(
    ("pairs", "steps", "between"), [(2, 9, 3), pytest.param(10, 1000, 10, marks=pytest.mark.soak)]
)
def test_a_walk(crowd: MakeCrowd, pairs: int, steps: int, between: int) -> None:
    """Processes that connect and disconnect all the time, and at each step one of them goes somewhere else."""
    chance, many = random.Random(steps), crowd(pairs)  # noqa: S311 - the same every time
    for name in many.names:
        many.add(name, chance.randrange(3))
    for step in range(1, steps + 1):
        who = chance.choice(many.names)
        where = many.nodes.index(many.there[who].shell)
        many.move(who, (where + chance.randrange(1, 3)) % 3)
        if step % between == 0:
            many.all_go_on()
