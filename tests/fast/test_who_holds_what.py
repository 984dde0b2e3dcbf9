"""The software device says whose each queue pair is, as a kernel with a driver does, and the agent goes by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import workload
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.usefixtures("on_the_nodes")

_GOES_ON = "^ *[0-9]+ s +[1-9][0-9]* ops/s"


def _queue_pairs(node: Shell) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(node.run("rdma", "-j", "resource", "show", "qp").stdout)
    return found


def test_queue_pairs_are_of_the_container_that_has_made_them(
    src: Shell, peer: Shell, containers: Callable[[Container], Container]
) -> None:
    """Each in the numbers of its own node's processes, though the daemon of the devices is elsewhere."""
    client, server = workload.pair(src, peer)
    for one in (server, client):
        containers(one).run()
    client.wait_for_line(_GOES_ON)
    mine, theirs = _queue_pairs(src), _queue_pairs(peer)
    assert {(one["lqpn"], one["rqpn"]) for one in mine if "rqpn" in one}
    assert {(one["lqpn"], one["rqpn"]) for one in mine if "rqpn" in one} == {
        (one["rqpn"], one["lqpn"]) for one in theirs if "rqpn" in one
    }
    for node, container, found in ((src, client, mine), (peer, server, theirs)):
        assert {one["ifname"] for one in found} == {"rxe0"}
        for pid in {one["pid"] for one in found}:
            assert container.full_id() in node.sh(f"cat /proc/{pid}/cgroup").stdout
    # No container reaches what its host's root does.
    seen = src.sh(f"docker exec {client.name} sh -c 'ls /run/rdma-sysfs /run/migrrdma 2>&1; true'").stdout
    assert seen.count("No such file") == 2, seen
    said = src.sh("journalctl -u migrrdma-agent --no-pager").stdout
    assert "cannot be learnt from the kernel" not in said
