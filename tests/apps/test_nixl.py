"""NIXL, with the UCX and the libibverbs that come in its wheel, moves in mid-traffic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import applications
import pytest
from applications import IN_CONTAINER, Ends, Moves
from migrrdma_lab.containers import Container
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_PACKAGE = "nixl-cu12==1.5.1"
_ENVIRONMENT = [
    "UCX_NET_DEVICES=rxe0:1",
    # A busy machine's Docker keeps a peer away for longer than UCX waits for it.
    "UCX_KEEPALIVE_INTERVAL=inf",
    "UCX_UD_VERBS_TIMEOUT=60m",
    "UCX_TCP_KEEPIDLE=inf",
]
_FOR_THE_SOFTWARE_DEVICE = ["LD_PRELOAD=libibverbs.so.1"]
"""Which is in that, and not in the one that the wheel brings."""

_FOR_SOFT_ROCE = [
    # Its wheel has no driver for that: Debian's is found by its name, and enters itself with who is first to be asked.
    "LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/libibverbs",
    f"LD_PRELOAD={IN_CONTAINER}/{_PACKAGE}/nixl_cu12.libs/libibverbs-1de1263b.so.1.14.48.0",
    # Else it asks for the device's network interface, which is not the container's.
    "UCX_IB_ROCE_REACHABILITY_MODE=all",
]
_ITS_END_THERE = 139
"""Having said that all was well: SIGSEGV while its libraries are unloaded, without this runtime as well."""


@pytest.fixture(scope="module")
def nixl(rack: Rack, nodes: list[Shell]) -> None:
    """The wheel, and the program on its API, on every node."""
    program = Path(__file__).with_name("nixl_pair.py")
    applications.put([applications.wheel(rack.places, _PACKAGE), program], nodes)


@pytest.mark.by_make_test("fast", "emulated")
@pytest.mark.usefixtures("nixl")
def test_a_program_on_its_python_api_reads_what_it_wrote_wherever_it_and_its_peer_are(
    on_soft_roce: bool, src: Shell, peer: Shell, containers: Register, moves: Moves
) -> None:
    environment = [*_ENVIRONMENT, *(_FOR_SOFT_ROCE if on_soft_roce else _FOR_THE_SOFTWARE_DEVICE)]
    program = ["python3", f"{IN_CONTAINER}/nixl_pair.py"]
    server = containers(
        applications.container(peer, "server", [*program, "10.78.0.151"], "10.78.0.151", environment)
    )
    server.run().wait_for_line("^lends")
    client = containers(
        applications.container(
            src, "client", [*program, "10.78.0.150", "10.78.0.151"], "10.78.0.150", environment
        )
    )
    ends = Ends(server, client.run())
    applications.move_in_mid_traffic(ends, moves, _ITS_END_THERE if on_soft_roce else 0)
