"""What Docker does by itself when a checkpoint ends a container makes no second copy of it, and throws none away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import workload
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.usefixtures("on_the_nodes")


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure:3", "no"])
def test_a_container_with_a_restart_policy_moves_and_is_not_started_afresh(
    src: Shell, dst: Shell, peer: Shell, containers: Callable[[Container], Container], policy: str
) -> None:
    client, server = workload.pair(src, peer, "-w", "20")
    client = replace(client, options=(*client.options, f"--restart={policy}"))
    containers(server).run()
    containers(client).run()
    client.wait_for_line(workload.RATE)
    for node in (src, dst):
        node.run("rm", "-rf", rdma.CHECKPOINTS)
    client.checkpoint("move", "--checkpoint-dir", rdma.CHECKPOINTS)
    if policy != "no":
        assert "is not created: its checkpoint (migration" in _error(client)
    assert not client.running()
    containers(client.on(dst))
    moved = rdma.restore(client, dst, staged=policy in ("always", "no"))
    moved.wait_for_line(workload.RATE)
    assert moved.running()
    assert not client.running()


def test_a_container_that_is_removed_at_its_end_is_not_checkpointed_into_its_own_folder(
    src: Shell, peer: Shell, containers: Callable[[Container], Container]
) -> None:
    client, server = workload.pair(src, peer, "-w", "20")
    client = replace(client, options=(*client.options, "--rm"))
    containers(server).run()
    containers(client).run()
    client.wait_for_line(workload.RATE)
    with pytest.raises(NodeCommandError, match="the container was started with --rm"):
        client.checkpoint("lost")
    client.wait_for_line(workload.RATE, after=len(client.lines()))
    assert client.running()


def _error(container: Container) -> str:
    """Why Docker could not start it again, once it has tried."""
    deadline = time.monotonic() + 60
    while True:
        found = container.docker("inspect", "-f", "{{.State.Status}} {{.State.Error}}", container.name).stdout
        if "exited" in found and found.split(maxsplit=1)[1:]:
            return found
        assert time.monotonic() < deadline, f"Docker has not tried to start it again: {found}"
        time.sleep(0.2)  # Docker's own state: the event of a failed start has no text
