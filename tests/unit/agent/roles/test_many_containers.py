"""A hundred containers of one host checkpointed at once: all are, and none costs more than one of a few."""

from __future__ import annotations

from pathlib import Path

import cluster
from cluster import Cluster
from many_checkpoints import checkpoint_at_once


def test_a_hundred_containers_are_checkpointed_at_once(tmp_path: Path) -> None:
    each: list[float] = []

    async def few(hosts: Cluster) -> None:
        each.append(await checkpoint_at_once(hosts, 10))

    async def many(hosts: Cluster) -> None:
        each.append(await checkpoint_at_once(hosts, 100))

    for name, scenario in (("few", few), ("many", many)):
        (tmp_path / name).mkdir()
        cluster.play(tmp_path / name, scenario)
    assert each[1] < 3 * each[0], f"{each[1]:.4f} s each of many, {each[0]:.4f} s of few"
