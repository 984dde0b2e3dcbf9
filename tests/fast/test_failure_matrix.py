"""Everything that a migration writes, says or starts is struck: the application survives at one place.

The cases are made from the registry of fault points (`migrrdma_runtime/base/fault_points.py`) and the blows that make
sense at each (`fault_cases`); the oracle is one (`struck_pair`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fault_cases
import pytest
from fault_cases import Case
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import NODES
from struck_pair import StruckPair, impatient

from migrrdma_runtime.base.fault_points import Action

pytestmark = [pytest.mark.usefixtures("on_the_nodes"), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def impatient_rack(rack: FastRack) -> Iterator[FastRack]:
    """Agents that do not wait for long."""
    for node in NODES:
        impatient(rack.shell(node))
    yield rack
    rack.reset()


class _Pairs:
    """The pair of containers that a case finds running: the last case's, if that has left it whole."""

    def __init__(self, rack: FastRack) -> None:
        self.rack = rack
        self.last: StruckPair | None = None
        self.pair: StruckPair | None = None

    def whole(self, *, by_docker: bool = False, staged: bool = False) -> StruckPair:
        """One that runs; whose client is the engine's or the runtime's."""
        if self.pair is not None and (self.pair.by_docker, self.pair.staged) != (by_docker, staged):
            self.end()
        if self.pair is None:
            self.remove()
            self.last = self.pair = StruckPair(self.rack, by_docker, staged)
            self.pair.start()
        pair, self.pair = self.pair, None
        return pair

    def end(self) -> None:
        """Have both ends of it come to their end, and see what they found."""
        pair, self.pair = self.pair, None
        assert pair is not None, "the last case has left no pair"
        pair.stop()

    def remove(self) -> None:
        """Whatever the last case has left."""
        if self.last is not None:
            self.last.remove()


@pytest.fixture(scope="module")
def pairs(impatient_rack: FastRack) -> Iterator[_Pairs]:
    pairs = _Pairs(impatient_rack)
    yield pairs
    pairs.remove()


def _strike(pairs: _Pairs, case: Case, *, by_docker: bool = False, staged: bool = False) -> None:
    pair = pairs.whole(by_docker=by_docker, staged=staged)
    if pair.play(case):
        pairs.pair = pair  # only one that has come through all of it is of use to the next


_UP_TO_DOCKER = {
    Action.RUNTIME_DUMP,
    Action.RUNTIME_SYNC_IMAGES,
    Action.RUNTIME_WRITE_OUTCOME,
    Action.RUNTIME_REPORT_DUMP,
    Action.RUNTIME_RESTORE,
    Action.RUNTIME_REPORT_RESTORE,
}
"""What comes of these is up to Docker as well: what it does with images and processes when the runtime fails there."""


def _usual(here: Callable[[Case], bool]) -> list[Any]:
    """One case for each point; those of the other test are left to `make soak`."""
    return [
        pytest.param(case, id=str(case), marks=[] if here(case) else pytest.mark.soak)
        for case in fault_cases.one_case_for_each_point()
    ]


@pytest.mark.parametrize("case", _usual(here=lambda case: case.action not in _UP_TO_DOCKER))
def test_it_survives_at_one_place(pairs: _Pairs, case: Case) -> None:
    _strike(pairs, case)


@pytest.mark.parametrize("case", fault_cases.CRIU_DIES, ids=str)
def test_what_is_held_is_restored_again_when_criu_dies(pairs: _Pairs, case: Case) -> None:
    _strike(pairs, case)


@pytest.mark.parametrize(
    "case",
    [
        *fault_cases.AFTERWARDS,
        *(
            pytest.param(case, marks=pytest.mark.soak)
            for case in fault_cases.all_afterwards()
            if case not in fault_cases.AFTERWARDS
        ),
    ],
    ids=str,
)
def test_it_survives_at_one_place_if_it_is_committed_afterwards(pairs: _Pairs, case: Case) -> None:
    _strike(pairs, case)


@pytest.mark.soak
@pytest.mark.parametrize(
    "case",
    sorted(set(fault_cases.every_case()) - set(fault_cases.one_case_for_each_point()), key=str),
    ids=str,
)
def test_it_survives_at_one_place_whatever_strikes(pairs: _Pairs, case: Case) -> None:
    _strike(pairs, case)


@pytest.mark.parametrize("case", _usual(here=lambda case: case.action in _UP_TO_DOCKER))
@pytest.mark.parametrize(
    "staged", [pytest.param(False, id="by checkpoint"), pytest.param(True, id="by plain start")]
)
def test_it_survives_at_one_place_under_docker(pairs: _Pairs, case: Case, staged: bool) -> None:
    _strike(pairs, case, by_docker=True, staged=staged)


def test_both_ends_find_nothing_wrong_after_all_of_it(pairs: _Pairs) -> None:
    pairs.whole(by_docker=True, staged=True).stop()
