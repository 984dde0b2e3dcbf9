"""Many moves of several containers, in every shape: one end, both ends at once, ends of different pairs at once.

Every container may land on every host, also on its partner's. After each turn the ends that have moved go on; at the
end every end finds nothing lost, repeated, reordered or changed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import workload
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import NODES, PEER, SRC, Node
from runtime_container import RuntimeContainer
from struck_pair import GOES_ON, LATENCY_NS, impatient

pytestmark = [pytest.mark.usefixtures("on_the_nodes"), pytest.mark.timeout(4200)]

_PAIRS = 3
_SHAPES = ("one end", "one end", "one end", "both ends", "ends of two pairs")


@pytest.fixture
def agents(rack: FastRack) -> Iterator[FastRack]:
    """Agents that ask often whether it is their turn, and may wait for long; a wire that leaves the processors free."""
    for node in NODES:
        impatient(
            rack.shell(node), guest=20, peer=20, drain=30, reconnect=60, doubt=60, partner=900, turn=120
        )
        rack.devices.daemon.control.set(node.name, "latency", LATENCY_NS)
    yield rack
    rack.reset()


@dataclass
class _Fleet:
    """The containers, by pair: the client and the server."""

    rack: FastRack
    pairs: list[list[RuntimeContainer]]

    @classmethod
    def start(cls, rack: FastRack) -> _Fleet:
        fleet = cls(rack, [])
        for number in range(_PAIRS):
            ends = workload.pair(rack.shell(SRC), rack.shell(PEER), "-q", "2", number=number)
            pair = []
            for end, address in zip(ends, (160 + 2 * number, 161 + 2 * number), strict=True):
                command = [word.replace(workload.IN_CONTAINER, "/mnt") for word in end.command]
                binds = [(workload.ON_NODE, "/mnt")]
                pair.append(RuntimeContainer(end.shell, end.name, f"10.78.0.{address}", command, binds))
                for node in NODES:
                    pair[-1].on(rack.shell(node)).remove()  # what a killed test run left behind
                    pair[-1].on(rack.shell(node)).prepare()
            fleet.pairs.append(pair)
            pair[1].run()
            pair[0].run()
            pair[0].wait_for_line(GOES_ON)
        return fleet

    def move(self, pair: int, end: int, there: Node) -> None:
        """Move one, and see that it goes on."""
        container = self.pairs[pair][end] = self.pairs[pair][end].move(self.rack.shell(there))
        container.wait_for_line(GOES_ON, after=len(container.lines()))

    def judge(self, moves: int) -> None:
        """End all; each gives its verdict."""
        for client, server in self.pairs:
            server.shell.run("migrrdma-runtime", "kill", server.name, "TERM")
            for end in (server, client):
                end.wait_for_line("^integrity: (ok|FAILED)")
                verdict = workload.judge(end.lines())
                assert verdict.ok, f"{end.name}: {verdict.text}"
                assert verdict.operations > moves

    def remove(self) -> None:
        """Of all that was started, everything."""
        for pair in self.pairs:
            for container in pair:
                for node in NODES:
                    container.on(self.rack.shell(node)).remove()


@pytest.mark.parametrize("moves", [150, pytest.param(1000, marks=pytest.mark.soak)])
def test_nothing_is_lost_over_many_moves_of_every_shape(agents: FastRack, moves: int) -> None:
    chance = random.Random(moves)  # noqa: S311 - the same every time
    fleet = _Fleet.start(agents)
    done = 0
    try:
        with ThreadPoolExecutor(2) as pool:
            while done < moves:
                turn = [
                    (
                        pair,
                        end,
                        chance.choice([node for node in NODES if node is not _where(fleet, pair, end)]),
                    )
                    for pair, end in _chosen(chance)
                ]
                for moved in [pool.submit(fleet.move, *one) for one in turn]:
                    moved.result()
                done += len(turn)
        fleet.judge(moves)
    finally:
        fleet.remove()


def _where(fleet: _Fleet, pair: int, end: int) -> Node:
    return fleet.pairs[pair][end].shell.node


def _chosen(chance: random.Random) -> list[tuple[int, int]]:
    """Pairs and ends that move in one turn."""
    shape, pair = chance.choice(_SHAPES), chance.randrange(_PAIRS)
    if shape == "both ends":
        return [(pair, 0), (pair, 1)]
    if shape == "one end":
        return [(pair, chance.randrange(2))]
    return [(pair, chance.randrange(2)), ((pair + 1) % _PAIRS, chance.randrange(2))]
