"""The agent is gone while CRIU dumps: the checkpoint succeeds, and is restored once the agent is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import workload
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.usefixtures("on_the_nodes")

_LOW_LEVEL = "/usr/local/sbin/runc-without-agent"
_SCRIPT = """#!/bin/sh
case " $* " in *" checkpoint "*) systemctl stop migrrdma-agent;; esac
exec runc "$@"
"""
_CONFIG = "/etc/migrrdma/config.toml"


@pytest.fixture
def no_agent_during_a_dump(src: Shell) -> Iterator[None]:
    """Stop the agent of ``src`` when the low-level runtime is about to dump."""
    src.run("tee", _LOW_LEVEL, stdin=_SCRIPT.encode())
    src.run("chmod", "+x", _LOW_LEVEL)
    before = src.run("cat", _CONFIG).stdout
    src.run("tee", _CONFIG, stdin=f'runtime = "{_LOW_LEVEL}"\n{before}'.encode())
    yield
    src.run("tee", _CONFIG, stdin=before.encode())
    src.run("systemctl", "start", "migrrdma-agent")


@pytest.mark.usefixtures("no_agent_during_a_dump")
def test_a_dump_that_succeeds_while_the_agent_is_stopped_is_restored(
    src: Shell, dst: Shell, peer: Shell, containers: Callable[[Container], Container]
) -> None:
    client, server = workload.pair(src, peer, "-w", "20")
    containers(server).run()
    containers(client).run()
    client.wait_for_line(workload.RATE)
    for node in (src, dst):
        node.run("rm", "-rf", rdma.CHECKPOINTS)
    client.checkpoint("move", "--checkpoint-dir", rdma.CHECKPOINTS)
    assert src.run("systemctl", "is-active", "migrrdma-agent", check=False).stdout.strip() == "inactive"
    assert not client.running()
    src.run("systemctl", "start", "migrrdma-agent")
    deadline = time.monotonic() + 30
    while _state(src) != "parked":
        assert time.monotonic() < deadline, f"the agent that is back finds the migration {_state(src)}"
        time.sleep(0.2)  # the agent's own state: nothing tells of it
    containers(client.on(dst))
    moved = rdma.restore(client, dst)
    moved.wait_for_line(workload.RATE)
    server.wait_for_line(workload.RATE, after=len(server.lines()))
    assert moved.running()
    assert server.running()


def _state(node: Shell) -> str:
    """Of the last migration that the node was the source of."""
    found = [one for one in rdma.status(node)["migrations"] if one["role"] == "source"]
    return str(found[-1]["state"])
