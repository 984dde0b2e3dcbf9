"""A person on the hosts sees what a container with RDMA does, what waits for whom, and can end it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import workload
from metrics import metric
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.usefixtures("on_the_nodes")

_PATIENT_S = 60


def _told(shell: Shell, *arguments: str) -> Any:
    return json.loads(shell.run("migrrdma", *arguments, "--json").stdout)


def test_a_checkpoint_that_waits_is_seen_at_both_ends_and_given_up(
    src: Shell, peer: Shell, containers: Callable[[Container], Container]
) -> None:
    client, server = workload.pair(src, peer, "-w", "20")
    containers(server).run()
    containers(client).run()
    client.wait_for_line(workload.RATE)

    [inside] = _told(src, "inspect", client.name)
    assert inside["state"] == "running"
    assert not any(one["syscall"].startswith("system call") for one in inside["threads"])
    assert {one["state"] for one in inside["queue_pairs"]} == {"RTS"}
    [facing] = _told(peer, "inspect", server.name)
    ends = {one["number"]: one["peer"] for one in inside["queue_pairs"]}
    assert {one["peer"]: one["number"] for one in facing["queue_pairs"]} == ends

    src.run("rm", "-rf", rdma.CHECKPOINTS)
    client.checkpoint("waits", "--checkpoint-dir", rdma.CHECKPOINTS)
    [parked] = [one for one in _told(src, "migration", "list") if one["state"] == "parked"]
    assert parked["waits_for"] == ["somebody to restore the checkpoint"]
    assert [one["name"] for one in parked["peers"]] == ["peer"]
    assert metric(src, 'migrrdma_migrations{role="source",state="parked"}') >= 1
    assert metric(src, 'migrrdma_step_seconds_count{step="drain"}') >= 1
    [suspended] = _told(peer, "migration", "show", parked["migration"])
    assert (suspended["role"], suspended["state"]) == ("partner", "suspended")
    [facing] = _told(peer, "inspect", server.name)
    assert facing["state"] == "quiesced"
    assert all(one["quiesced"] and one["marker"] == "done" for one in facing["queue_pairs"])

    src.run("migrrdma", "migration", "abandon", parked["migration"])
    deadline = time.monotonic() + _PATIENT_S
    while _told(peer, "migration", "show", parked["migration"])[0]["state"] != "undone":
        assert time.monotonic() < deadline
        time.sleep(0.2)  # the partner asks every few seconds
    assert not [one for one in _told(src, "migration", "list") if one["migration"] == parked["migration"]]
    log = src.run("journalctl", "-u", "migrrdma-agent", "-o", "cat").stdout
    assert f"migration {parked['migration']} as source: drain took" in log
    assert f"migration {parked['migration']} as source: abandoned (given up by a person)" in log
