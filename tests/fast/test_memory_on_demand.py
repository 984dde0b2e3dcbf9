"""A container whose memory is paged on demand moves to hosts that have that; others refuse it, and lose nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import workload
from migrrdma_lab.errors import RackError
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import DST, NODES, PEER, SRC, Node
from runtime_container import RuntimeContainer
from struck_pair import GOES_ON

pytestmark = pytest.mark.usefixtures("on_the_nodes")


@pytest.fixture
def paged(rack: FastRack) -> Iterator[FastRack]:
    """A rack of which one node has none."""
    for node in (SRC, PEER):
        _page_on_demand(rack, node)
    yield rack
    rack.reset()


def _page_on_demand(rack: FastRack, node: Node) -> None:
    rack.devices.daemon.control.set(node.name, "on_demand", 1)


@pytest.fixture
def ends(paged: FastRack) -> Iterator[tuple[RuntimeContainer, RuntimeContainer]]:
    """The client on ``src`` and the server on ``peer``."""
    made = []
    pair = workload.pair(paged.shell(SRC), paged.shell(PEER), "-q", "2", "-m", "demand")
    for end, address in zip(pair, (160, 161), strict=True):
        command = [word.replace(workload.IN_CONTAINER, "/mnt") for word in end.command]
        container = RuntimeContainer(
            end.shell, end.name, f"10.78.0.{address}", command, [(workload.ON_NODE, "/mnt")]
        )
        for node in NODES:
            container.on(paged.shell(node)).remove()
            container.on(paged.shell(node)).prepare()
        made.append(container)
    client, server = made
    server.run()
    client.run().wait_for_line(GOES_ON, 600)
    yield client, server
    for container in made:
        for node in NODES:
            container.on(paged.shell(node)).remove()


def test_memory_goes_where_it_is_paged_on_demand(
    paged: FastRack, ends: tuple[RuntimeContainer, RuntimeContainer]
) -> None:
    client, server = ends
    client.checkpoint()
    client.remove()
    with pytest.raises(RackError, match="memory region with on-demand paging"):
        client.restore(paged.shell(DST))
    client.on(paged.shell(DST)).remove()
    _page_on_demand(paged, DST)
    client = client.restore(paged.shell(DST))
    client.wait_for_line(GOES_ON, 600, after=len(client.lines()))
    server = server.move(paged.shell(SRC))
    client.wait_for_line(GOES_ON, 600, after=len(client.lines()))
    client.shell.run("migrrdma-runtime", "kill", client.name, "TERM")
    for end in (client, server):
        end.wait_for_line("^integrity: (ok|FAILED)", 600)
        assert workload.judge(end.lines()).ok, end.lines()[-1]
