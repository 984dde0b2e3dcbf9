"""A hundred containers of one host checkpointed at once: all are, and each costs one question more for each other."""

from __future__ import annotations

from pathlib import Path

import calls
import cluster
from cluster import Cluster
from many_checkpoints import checkpoint_at_once

_A_QUESTION = 600
"""Calls at most for a question to a process and its answer: 430 as counted."""


def test_a_hundred_containers_are_checkpointed_at_once(tmp_path: Path) -> None:
    """The kernel cannot be asked here: each process is asked whether the other ends are its own."""
    each: dict[int, float] = {}
    for count in (10, 100):

        async def scenario(hosts: Cluster, count: int = count) -> None:
            with calls.counted() as counted:
                await checkpoint_at_once(hosts, count)
            each[count] = counted.made / count

        (tmp_path / str(count)).mkdir()
        cluster.play(tmp_path / str(count), scenario)
    assert each[100] < each[10] + 90 * _A_QUESTION, f"calls for each: {each}"
