"""Everything that a migration writes, says or starts is struck: the application survives at one place.

The cases are made from the registry of fault points (`migrrdma_runtime/base/fault_points.py`) and the blows that make
sense at each (`fault_cases`); the oracle is one (`struck_pair`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fault_cases
import pytest
from fault_cases import Case, Course
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import NODES
from struck_pair import StruckPair, impatient

pytestmark = [pytest.mark.usefixtures("on_the_nodes"), pytest.mark.timeout(300)]


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
        self.pair: StruckPair | None = None

    def whole(self) -> StruckPair:
        if self.pair is None:
            self.pair = StruckPair(self.rack)
            self.pair.start()
        pair, self.pair = self.pair, None
        return pair


@pytest.fixture(scope="module")
def pairs(impatient_rack: FastRack) -> Iterator[_Pairs]:
    yield _Pairs(impatient_rack)
    StruckPair(impatient_rack).remove()


def _strike(pairs: _Pairs, case: Case) -> None:
    pair = pairs.whole()
    if pair.play(case):
        pairs.pair = pair  # only one that has come through all of it is of use to the next


_OFTEN = ("store.", "note.", "plugin.", "runtime.")
"""What `make test` strikes at: durable writes and external commands; `make soak` strikes at messages as well."""


def _is_often(case: Case) -> bool:
    return case.point.startswith(_OFTEN) and case.reached.course is not Course.UNHEARD


def _usual() -> list[Any]:
    """One case for each point; those that are left to `make soak` are marked."""
    return [
        pytest.param(case, id=str(case), marks=[] if _is_often(case) else pytest.mark.soak)
        for case in fault_cases.one_case_for_each_point()
    ]


@pytest.mark.parametrize("case", _usual())
def test_it_survives_at_one_place(pairs: _Pairs, case: Case) -> None:
    _strike(pairs, case)


@pytest.mark.soak
@pytest.mark.parametrize(
    "case",
    sorted(set(fault_cases.every_case()) - set(fault_cases.one_case_for_each_point()), key=str),
    ids=str,
)
def test_it_survives_at_one_place_whatever_strikes(pairs: _Pairs, case: Case) -> None:
    _strike(pairs, case)


def test_both_ends_find_nothing_wrong_after_all_of_it(pairs: _Pairs) -> None:
    pairs.whole().stop()
