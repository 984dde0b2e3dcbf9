"""MPI over UCX moves in mid-traffic: two ranks on two hosts, their launcher and its daemons with them."""

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

_PACKAGE = "mpi4py==4.1.2"
_ROUNDS = "^[0-9]+ rounds"
_REMOTE_SHELL = f"{IN_CONTAINER}/remote_shell.py"
_ADDRESSES = {"client": "10.78.0.150", "server": "10.78.0.151"}

_UCX = {
    "UCX_NET_DEVICES": "rxe0:1",
    # Before 1.19 it looks for the GID where IPv6 has it, but for Mellanox' devices, and drops every datagram.
    "UCX_UD_VERBS_ETH_DGID_CHECK": "n",
    # Whoever has not answered for 30 s is given up otherwise.
    "UCX_UD_VERBS_TIMEOUT": "60m",
}

_LAUNCHERS = {
    "Open MPI": (
        "openmpi", "libmpi.so.40",
        ["mpirun.openmpi", "--prtemca", "plm_ssh_agent", _REMOTE_SHELL,
         "--host", ",".join(f"{one}:1" for one in _ADDRESSES.values()), "--map-by", ":OVERSUBSCRIBE", "-np", "2",
         "--bind-to", "none", "--mca", "pml", "ucx", "--mca", "osc", "ucx"],
    ),
    "MPICH": (
        "mpich", "libmpich.so.12",
        ["mpirun.mpich", "-launcher", "ssh", "-launcher-exec", _REMOTE_SHELL,
         "-hosts", ",".join(_ADDRESSES.values()), "-np", "2"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def programs(rack: Rack, nodes: list[Shell]) -> None:
    """The wheel, the program on it, and what the launcher takes for ssh, on every node."""
    here = Path(__file__).parent
    wheel = applications.wheel(rack.places, _PACKAGE)
    applications.put([wheel, here / "mpi_pair.py", here / "remote_shell.py"], nodes)
    for node in nodes:
        node.run("chmod", "+x", f"{applications.ON_NODE}/remote_shell.py")


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    "implementation",
    [pytest.param("Open MPI", marks=pytest.mark.by_make_test("fast", "emulated")), "MPICH"],
)
def test_two_ranks_hear_what_was_said_wherever_they_are(
    src: Shell, peer: Shell, containers: Register, moves: Moves, implementation: str
) -> None:
    abi, library, launcher = _LAUNCHERS[implementation]
    environment = {
        "MPI4PY_MPIABI": abi,
        "MPI4PY_LIBMPI": library,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        **_UCX,
    }
    given = [f"{name}={value}" for name, value in environment.items()]

    def end(node: Shell, name: str, command: list[str]) -> Container:
        # A checkpoint of Docker's has no file of the container's own layer, but every tmpfs.
        options = ["--tmpfs=/tmp"]
        return containers(applications.container(node, name, command, _ADDRESSES[name], given, options)).run()

    server = end(peer, "server", [_REMOTE_SHELL])
    server.wait_for_line("^listening")
    client = end(src, "client", [*launcher, "python3", f"{IN_CONTAINER}/mpi_pair.py"])
    client.wait_for_line(_ROUNDS, 120)
    ends = Ends(server, client)
    for one in moves:
        ends.move(one)
        ends.client.wait_for_line(_ROUNDS, 120, after=len(ends.client.lines()))
    ends.client.docker("exec", ends.client.name, "touch", "/tmp/stop")
    code, lines = applications.end_of(ends.client)
    assert code == 0, lines
    assert sum(": ok, " in line for line in lines) == 2, lines
