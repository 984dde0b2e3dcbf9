"""NIXL, with the UCX and the libibverbs that come in its wheel, moves in mid-traffic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import applications
import pytest
from applications import IN_CONTAINER, Ends
from migrrdma_lab.containers import Container
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_PACKAGE = "nixl-cu12==1.5.1"
_ENVIRONMENT = ["UCX_NET_DEVICES=rxe0:1"]


@pytest.fixture(scope="module")
def nixl(rack: Rack, nodes: list[Shell]) -> None:
    """The wheel, and the program on its API, on every node."""
    program = Path(__file__).with_name("nixl_pair.py")
    applications.put([applications.wheel(rack.places, _PACKAGE), program], nodes)


@pytest.mark.usefixtures("nixl")
def test_a_program_on_its_python_api_reads_what_it_wrote_wherever_it_and_its_peer_are(
    src: Shell, dst: Shell, peer: Shell, containers: Register
) -> None:
    program = ["python3", f"{IN_CONTAINER}/nixl_pair.py"]
    server = containers(
        applications.container(peer, "server", [*program, "10.78.0.151"], "10.78.0.151", _ENVIRONMENT)
    )
    server.run().wait_for_line("^lends")
    client = containers(
        applications.container(
            src, "client", [*program, "10.78.0.150", "10.78.0.151"], "10.78.0.150", _ENVIRONMENT
        )
    )
    ends = Ends(server, client.run())
    moves = (("server", dst), ("client", peer), ("server", src), ("client", dst))
    applications.move_in_mid_traffic(ends, moves)
