"""InfiniStore moves in mid-traffic: the store and who uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import applications
import pytest
from applications import IN_CONTAINER, Ends, Move, Moves
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import OLDER_APPLICATION_IMAGE
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_PACKAGE = "infinistore==0.2.35"


_SHOWN = "/root/shown"
_SHOW_DEVICE = f"""
mkdir -p {_SHOWN}/infiniband/rxe0
cp -rL /sys/class/infiniband/rxe0/ports {_SHOWN}/infiniband/rxe0/
"""


@pytest.fixture(scope="module")
def options(rack: Rack, on_soft_roce: bool, older_nodes: list[Shell]) -> list[str]:
    """The wheel, and the program on its API, on every node; with what a container has to be given for them.

    It looks for its GID in sysfs, where containers of the fast rack have no device: a kernel without RDMA has no place
    for one.
    """
    program = Path(__file__).with_name("infinistore_pair.py")
    wheel = applications.wheel(rack.places, _PACKAGE, OLDER_APPLICATION_IMAGE)
    applications.put([wheel, program], older_nodes)
    if on_soft_roce:
        return []
    for node in older_nodes:
        node.sh(_SHOW_DEVICE)
    return [f"--volume={_SHOWN}:/sys/class:ro"]


@pytest.fixture
def moves(on_soft_roce: bool, moves: Moves, dst: Shell) -> Moves:
    """Of an emulated node the client alone, and once: Docker packs its 540 MB for many minutes, with a copy in memory.

    The store has a pool of 1 GiB at least.
    """
    return (Move("client", dst, live=True),) if on_soft_roce else moves


def test_a_program_on_its_python_api_reads_what_it_wrote_wherever_it_and_the_store_are(
    src: Shell, peer: Shell, containers: Register, moves: Moves, options: list[str]
) -> None:
    program = ["python3", f"{IN_CONTAINER}/infinistore_pair.py", "rxe0"]

    def end(node: Shell, name: str, command: list[str], address: str) -> Container:
        return containers(
            applications.container(
                node, name, command, address, options=options, image=OLDER_APPLICATION_IMAGE
            )
        ).run()

    server = end(peer, "server", program, "10.78.0.151")
    server.wait_for_line("^serves")
    ends = Ends(server, end(src, "client", [*program, "10.78.0.151"], "10.78.0.150"))
    applications.move_in_mid_traffic(ends, moves)
