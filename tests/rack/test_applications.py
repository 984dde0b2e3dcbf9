"""A real application moves between hosts with real kernel RDMA; `RACK=emulated pytest tests/apps` has all of them."""

from __future__ import annotations

from collections.abc import Callable

import pyverbs_moves
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell


def test_a_program_on_pyverbs_reads_what_it_wrote(
    src: Shell, dst: Shell, peer: Shell, containers: Callable[[Container], Container]
) -> None:
    pyverbs_moves.move_in_mid_traffic([src, dst, peer], containers, [("server", dst), ("client", peer)])
