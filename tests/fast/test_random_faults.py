"""What no list has: something strikes somewhere at any time of a move, by the oracle of the failure matrix."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from fault_cases import Blow
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import DST, NODES, PEER, SRC
from striking import VICTIMS
from struck_pair import StruckPair, impatient

pytestmark = [pytest.mark.usefixtures("on_the_nodes"), pytest.mark.timeout(7200)]

_BLOWS = (Blow.KILL, Blow.KILL, Blow.KILL, Blow.CUT, Blow.DISK, Blow.CLOCK, Blow.POWER)
_MOST_S = 3.0
"""After a move's begin: by then it is over, where nothing holds it up."""


@pytest.fixture(scope="module")
def impatient_rack(rack: FastRack) -> Iterator[FastRack]:
    """Agents that do not wait for long."""
    for node in NODES:
        impatient(rack.shell(node))
    yield rack
    rack.reset()


@pytest.mark.parametrize("strikes", [4, pytest.param(200, marks=pytest.mark.soak)])
def test_it_survives_at_one_place_whenever_something_strikes(impatient_rack: FastRack, strikes: int) -> None:
    chance = random.Random(strikes)  # noqa: S311 - the same every time
    pair = StruckPair(impatient_rack)
    alive = False
    for number in range(strikes):
        if not alive:
            pair.start()
        node, blow = chance.choice((SRC, DST, PEER)), chance.choice(_BLOWS)
        victim, seconds = chance.choice(sorted(VICTIMS)), chance.uniform(0, _MOST_S)
        if blow is Blow.POWER and node is PEER:
            node = pair.there
        try:
            alive = pair.play_at_some_time(node, blow, victim, seconds)
        except AssertionError as error:
            said = (
                f"strike {number}: {blow.value} ({victim}) on {node.name} after {seconds:.2f} s; {pair.said}"
            )
            raise AssertionError(said) from error
    if alive:
        pair.stop()
    pair.remove()
