"""A program on pyverbs moves in mid-traffic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import applications
import pytest
from applications import IN_CONTAINER, Ends, Moves
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

_PROGRAM = Path(__file__).with_name("pyverbs_pair.py")


@pytest.mark.by_make_test("emulated")
def test_it_reads_what_it_wrote_wherever_it_and_its_peer_are(
    src: Shell, dst: Shell, peer: Shell, containers: Callable[[Container], Container], moves: Moves
) -> None:
    applications.put([_PROGRAM], [src, dst, peer])
    program = ["python3", f"{IN_CONTAINER}/{_PROGRAM.name}", "rxe0", "1"]

    def end(node: Shell, name: str, command: list[str], address: str) -> Container:
        image = container_image("trixie")
        return containers(applications.container(node, name, command, address, image=image)).run()

    server = end(peer, "server", program, "10.78.0.151")
    server.wait_for_line("^lends")
    ends = Ends(server, end(src, "client", [*program, "10.78.0.151"], "10.78.0.150"))
    applications.move_in_mid_traffic(ends, moves)
