"""Mooncake's transfer engine moves in mid-traffic, with its default deadlines: its bench, and its Python API."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import applications
import pytest
from applications import IN_CONTAINER, Ends, Move, Moves
from migrrdma_lab.containers import Container
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_PACKAGE = "mooncake-transfer-engine-non-cuda==0.3.13.post1"
_BENCH = f"{IN_CONTAINER}/{_PACKAGE}/mooncake/transfer_engine_bench"
# An emulated host that other tests keep busy restores no container within the 30 s that a transfer may take by default;
# `make soak` shows that one alone does.
_PATIENT = ["MC_TRANSFER_TIMEOUT=300"]
# The table of GIDs is the host's, where the first entry is the address of no network that others reach.
_ENVIRONMENT = ["MC_GID_INDEX=1"]

_UNTIL_IT_IS_CONNECTED = "until rdma -j resource show qp | grep -q '\"RTS\"'; do sleep 0.2; done"
"""The bench prints nothing until it ends."""


@pytest.fixture(scope="module")
def mooncake(rack: Rack, nodes: list[Shell]) -> None:
    """The wheel, and the program on its API, on every node."""
    program = Path(__file__).with_name("mooncake_pair.py")
    applications.put([applications.wheel(rack.places, _PACKAGE), program], nodes)


@pytest.mark.by_make_test("fast")
@pytest.mark.usefixtures("mooncake")
def test_the_bench_ends_well_when_both_ends_move(
    on_soft_roce: bool, src: Shell, dst: Shell, peer: Shell, containers: Register
) -> None:
    common = [
        "--metadata_server=P2PHANDSHAKE", "--protocol=rdma", "--device_name=rxe0", "--buffer_size=8388608",
        "--threads=2", "--batch_size=4", "--block_size=65536",
    ]  # fmt: skip
    target = [_BENCH, "--mode=target", "--local_server_name=10.78.0.151:12345", *common]
    server = containers(applications.container(peer, "server", target, "10.78.0.151", _ENVIRONMENT))
    server.run().wait_for_line("listening on ")
    where = re.findall(r"listening on (\S+)", "\n".join(server.lines()))[-1]
    initiator = [
        _BENCH, "--mode=initiator", "--local_server_name=10.78.0.150:12346", f"--segment_id={where}",
        "--operation=write", "--duration=3600", *common,
    ]  # fmt: skip
    client = containers(applications.container(src, "client", initiator, "10.78.0.150", _ENVIRONMENT))
    ends = Ends(server, client.run())
    src.sh(_UNTIL_IT_IS_CONNECTED, timeout=60)
    ends.move(Move("server", dst, on_soft_roce))
    ends.move(Move("server", peer, on_soft_roce))
    # Its main thread sleeps for its hour, and CRIU ends a sleep: this move ends the bench, in good order.
    ends.move(Move("client", dst, on_soft_roce))
    code, lines = applications.end_of(ends.client)
    assert code == 0, lines
    [verdict] = [one for one in lines if "Test completed" in one]
    assert int(re.findall(r"batch count (\d+)", verdict)[0]) > 0, verdict
    assert ends.server.running()


@pytest.mark.by_make_test("fast", "emulated")
@pytest.mark.usefixtures("mooncake")
def test_a_program_on_its_python_api_reads_what_it_wrote_wherever_it_and_its_peer_are(
    on_soft_roce: bool,
    src: Shell,
    peer: Shell,
    containers: Register,
    moves: Moves,
    request: pytest.FixtureRequest,
) -> None:
    is_busy = on_soft_roce and not request.config.getoption("--soak")
    environment = [*_ENVIRONMENT, *(_PATIENT if is_busy else [])]
    program = ["python3", f"{IN_CONTAINER}/mooncake_pair.py"]
    server = containers(
        applications.container(peer, "server", [*program, "10.78.0.151"], "10.78.0.151", environment)
    )
    server.run().wait_for_line("^lends ")
    [where, place] = next(one for one in server.lines() if one.startswith("lends ")).split()[1:]
    client = containers(
        applications.container(
            src, "client", [*program, "10.78.0.150", where, place], "10.78.0.150", environment
        )
    )
    ends = Ends(server, client.run())
    applications.move_in_mid_traffic(ends, moves)
