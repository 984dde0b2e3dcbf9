"""gloo moves in mid-traffic: two ranks that sum over its ibverbs transport."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import applications
import pytest
from applications import IN_CONTAINER, ON_NODE, Ends, Moves
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import OLDER_APPLICATION_IMAGE
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_SOURCE = Path(__file__).with_name("gloo_pair.cc")
_COMPILE = ["g++", "-O1", "-o", "/out/gloo_pair", f"/out/{_SOURCE.name}", "-lgloo", "-libverbs", "-pthread"]


@pytest.fixture(scope="module")
def program(older_nodes: list[Shell], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The program on its API, compiled by one node for all: the image has what that takes."""
    applications.put([_SOURCE], older_nodes[:1])
    first = older_nodes[0]
    out = f"--volume={ON_NODE}:/out"
    first.run("docker", "run", "--rm", "--network=none", out, OLDER_APPLICATION_IMAGE, *_COMPILE)
    built = tmp_path_factory.mktemp("gloo") / "gloo_pair"
    built.write_bytes(first.download(f"cat {ON_NODE}/gloo_pair"))
    built.chmod(0o755)
    applications.put([built], older_nodes)


@pytest.mark.usefixtures("program")
def test_two_ranks_sum_what_they_have_wherever_they_are(
    src: Shell, peer: Shell, containers: Register, moves: Moves
) -> None:
    words = [f"{IN_CONTAINER}/gloo_pair", "rxe0", "1"]

    def end(node: Shell, name: str, command: list[str], address: str) -> Container:
        return containers(
            applications.container(node, name, command, address, image=OLDER_APPLICATION_IMAGE)
        ).run()

    server = end(peer, "server", words, "10.78.0.151")
    server.wait_for_line("^listening")
    ends = Ends(server, end(src, "client", [*words, "10.78.0.151"], "10.78.0.150"))
    applications.move_in_mid_traffic(ends, moves)
    code, lines = applications.end_of(ends.server)
    assert code == 0, lines
