"""The integrity workload across moves: nothing is lost, duplicated, reordered or corrupted, at either end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import workload
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]


@pytest.fixture(scope="module", autouse=True)
def _on_the_nodes(src: Shell, dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    workload.build(tmp_path_factory.mktemp("workload")).put(src, dst, peer)


def _works(*ends: Container) -> None:
    """Operations complete at both ends, from now on."""
    for end in ends:
        end.wait_for_line(r"^ *[0-9]+ s +[1-9][0-9]* ops/s", 90, after=len(end.lines()) + 1)


def _are_content(*ends: Container) -> None:
    workload.stop(ends[0])
    for end in ends:
        verdict = workload.verdict(end)
        assert verdict.ok, f"{end.name}: {verdict.text}"
        assert verdict.operations > 0


@pytest.mark.parametrize(
    ("moves", "options"), [(3, []), (2, ["-r"])], ids=["receives of their own", "shared receives"]
)
def test_nothing_is_lost_in_moves_forth_and_back(
    src: Shell, dst: Shell, peer: Shell, containers: Register, moves: int, options: list[str]
) -> None:
    client, server = workload.pair(src, peer, *options)
    for one in (server, client):
        containers(one).run()
    client.wait_for_line(workload.RATE, 90)
    for turn in range(moves):
        target = (dst, src)[turn % 2]
        containers(client.on(target))
        client = rdma.move(client, target)
        _works(client, server)
    _are_content(server, client)
