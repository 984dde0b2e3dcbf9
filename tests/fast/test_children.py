"""Programs that fork: their children have inherited devices, and use nothing of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import workload
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.usefixtures("on_the_nodes")

_GOES_ON = "^ *[0-9]+ s +[1-9][0-9]* ops/s"


def test_a_container_with_a_child_that_only_inherits_moves_there_and_back(
    src: Shell, dst: Shell, peer: Shell, containers: Callable[[Container], Container]
) -> None:
    client, server = workload.pair(src, peer, "-c")
    for one in (server, client):
        containers(one).run()
    containers(client.on(dst))
    for shell in (dst, src):
        client.wait_for_line(_GOES_ON, after=len(client.lines()))
        client = rdma.move(client, shell)
    client.wait_for_line(_GOES_ON, after=len(client.lines()))
    assert len(client.docker("top", client.name).stdout.splitlines()) == 3  # a title, the program, its child
    workload.stop(server)
    for end in (server, client):
        verdict = workload.verdict(end)
        assert verdict.ok, f"{end.name}: {verdict.text}"
