"""The software device says whose each queue pair is, as a kernel with a driver does, and the agent goes by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import workload
from guest_build import ROOT, compile_c
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.usefixtures("on_the_nodes")

_UNTIL_LOGGED = """
until journalctl -u migrrdma-agent --no-pager | grep -q "(past) of container"; do sleep 1; done
"""
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


def test_a_process_that_the_guest_library_does_not_see_is_named_before_its_checkpoint_is_refused(
    src: Shell, containers: Callable[[Container], Container], tmp_path: Path
) -> None:
    compile_c(tmp_path / "past", ROOT / "tests/probes/past.c", "-libverbs")
    src.run("mkdir", "-p", "/root/past")
    src.copy(str(tmp_path / "past"), ":/root/past/past")
    rdma.join_data_network(src)
    one = containers(
        Container(
            src, "past", ["/mnt/past"], [*src.rdma_options, "--network=data", "--volume=/root/past:/mnt:ro"],
            container_image("trixie"), "migrrdma",
        )
    ).run()  # fmt: skip
    one.wait_for_line("^made$")
    shown = json.loads(src.run("migrrdma", "status", "--json").stdout)
    [stranger] = shown["strangers"]
    assert stranger["command"] == "past"
    assert stranger["container"] == one.full_id()
    assert "libibverbs.so.1" in stranger["reason"]
    refused = src.run("docker", "checkpoint", "create", "past", "one", check=False)
    assert refused.returncode
    assert "open without the guest library" in refused.stderr
    assert "libibverbs.so.1" in refused.stderr
    # Nobody has to ask for it to stand in the log.
    src.sh(_UNTIL_LOGGED, timeout=120)
    assert one.docker("inspect", "--format={{.State.Running}}", "past").stdout.strip() == "true"
