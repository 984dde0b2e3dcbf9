"""All containers of a host are checkpointed at once, as when a host is emptied, and restored at once on another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from guest_build import ROOT, compile_c
from metrics import metrics
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer

_PROGRAM = "/root/many-at-once"
_TICK = r"^tick [0-9]+ [0-9.]+$"

_AT_A_TIME = 8
"""Of what is not looked at here: a hundred shells at once would only make it slower."""

_T = TypeVar("_T")


class _Fleet:
    """So many containers, each with two queue pairs that write to each other ten times a second."""

    def __init__(self, count: int, src: Shell, dst: Shell, program: Path) -> None:
        for node in (src, dst):
            node.run("mkdir", "-p", _PROGRAM)
            node.copy(str(program), f":{_PROGRAM}/lock_holders")
        self.src, self.dst = src, dst
        self.containers = [self._container(number) for number in range(count)]

    def _container(self, number: int) -> RuntimeContainer:
        address = f"10.78.1.{1 + number}"
        command = ["/mnt/lock_holders", "quiet"]
        return RuntimeContainer(self.src, f"many{number}", address, command, [(_PROGRAM, "/mnt")])

    def each(self, what: Callable[[RuntimeContainer], _T], at_a_time: int = _AT_A_TIME) -> list[_T]:
        """The same with every container, so many at a time."""
        with ThreadPoolExecutor(at_a_time) as pool:
            return list(pool.map(what, self.containers))

    def at_once(self, what: Callable[[RuntimeContainer], object]) -> float:
        """The same with all of them; the seconds until the last has done it."""
        begin = time.monotonic()
        self.each(what, len(self.containers))
        return time.monotonic() - begin

    def prepare(self, one: RuntimeContainer) -> None:
        self.remove(one)
        for node in (self.src, self.dst):
            one.on(node).prepare()

    def remove(self, one: RuntimeContainer) -> None:
        for node in (self.src, self.dst):
            one.on(node).remove()


@pytest.fixture
def fleet(request: pytest.FixtureRequest, src: Shell, dst: Shell, tmp_path: Path) -> Iterator[_Fleet]:
    program = tmp_path / "lock_holders"
    compile_c(program, ROOT / "tests/workloads/lock_holders.c", "-libverbs", "-pthread", "-ldl")
    fleet = _Fleet(request.param, src, dst, program)
    fleet.each(fleet.prepare)
    yield fleet
    fleet.each(fleet.remove)


@pytest.mark.parametrize("fleet", [20, pytest.param(100, marks=pytest.mark.soak)], indirect=True)
def test_all_containers_of_a_host_are_checkpointed_at_once_and_all_go_on(fleet: _Fleet) -> None:
    fleet.each(RuntimeContainer.run)
    fleet.each(lambda one: one.wait_for_line(_TICK))
    checkpointed = fleet.at_once(RuntimeContainer.checkpoint)
    fleet.each(RuntimeContainer.remove)
    fleet.containers = fleet.each(lambda one: one.carry_images(fleet.dst))
    restored = fleet.at_once(RuntimeContainer.restore_here)
    print(
        f"{len(fleet.containers)} containers: checkpointed in {checkpointed:.1f} s, restored in {restored:.1f} s"
    )
    fleet.each(lambda one: one.wait_for_line(_TICK, after=len(one.lines())))
    for one in fleet.containers:
        assert not [line for line in one.lines() if "failed" in line]
    for node in (fleet.src, fleet.dst):
        found, lag = metrics(node), "migrrdma_loop_lag_seconds"
        assert found[f'{lag}_bucket{{le="5.0"}}'] == found[f"{lag}_count"]
        print(f"{node.node.name}: the agent was late by {found[f'{lag}_sum']:.1f} s in all")
