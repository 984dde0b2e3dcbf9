"""A program on pyverbs in two containers that move in mid-traffic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import applications
from applications import IN_CONTAINER, Ends
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

_PROGRAM = Path(__file__).resolve().parents[1] / "apps" / "pyverbs_pair.py"


def move_in_mid_traffic(
    nodes: Sequence[Shell], containers: Callable[[Container], Container], moves: Sequence[tuple[str, Shell]]
) -> None:
    """Start both ends on the first and the last node and move them in turn; the program judges what it has read."""
    applications.put([_PROGRAM], nodes)
    program = ["python3", f"{IN_CONTAINER}/{_PROGRAM.name}", "rxe0", "1"]

    def end(node: Shell, name: str, command: list[str], address: str) -> Container:
        image = container_image("trixie")
        return containers(applications.container(node, name, command, address, image=image)).run()

    server = end(nodes[-1], "server", program, "10.78.0.151")
    server.wait_for_line("^lends")
    ends = Ends(server, end(nodes[0], "client", [*program, "10.78.0.151"], "10.78.0.150"))
    applications.move_in_mid_traffic(ends, moves)
