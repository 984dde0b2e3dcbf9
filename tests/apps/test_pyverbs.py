"""A program on pyverbs moves in mid-traffic; tests/rack has the same on Soft-RoCE."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pyverbs_moves
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell


@pytest.mark.soak
def test_it_reads_what_it_wrote_wherever_it_and_its_peer_are(
    nodes: list[Shell], containers: Callable[[Container], Container]
) -> None:
    src, dst, peer = nodes
    moves = (("server", dst), ("client", peer), ("server", src), ("client", dst))
    pyverbs_moves.move_in_mid_traffic(nodes, containers, moves)
