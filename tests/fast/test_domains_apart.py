"""A container moves whose partners face two of its protection domains: each reaches its own memory, and no other.

Before the move the device says so; after it the device of another host, to keys that agents and guests have translated.
Every refusal ends a connection at both ends, and what has failed is moved with the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer
from workload_containers import bring, workload_container

_ADDRESSES = {"domains": "10.78.0.180", "partner1": "10.78.0.181", "partner2": "10.78.0.182"}
_AS_IT_SHOULD_BE = ["own: success", "other: remote access error"]


@pytest.fixture
def server(src: Shell, dst: Shell, peer: Shell, tmp_path: Path) -> Iterator[RuntimeContainer]:
    """What has the two domains, on ``src``; it and its partners can be on every node."""
    with bring("domains", (src, dst, peer), tmp_path, _ADDRESSES, _container):
        yield _container(src, "domains")


def _container(node: Shell, name: str) -> RuntimeContainer:
    words = ["serve"] if name == "domains" else ["reach", _ADDRESSES["domains"]]
    return workload_container(node, "domains", name, _ADDRESSES[name], words)


def _try_again(partner: RuntimeContainer, server: RuntimeContainer) -> None:
    before, failed = len(partner.lines()), len(server.lines())
    partner.shell.run("migrrdma-runtime", "kill", partner.name, "USR1")
    partner.wait_for_line("^other: ", after=before)
    server.wait_for_line("^failed$", after=failed)


def test_partners_in_two_domains_reach_their_own_memory_move_after_move(
    src: Shell, dst: Shell, peer: Shell, server: RuntimeContainer
) -> None:
    server.run().wait_for_line("^listening$")
    # One of them on the very host that the server moves to.
    first, second = _container(peer, "partner1").run(), _container(dst, "partner2").run()
    for partner in (first, second):
        partner.wait_for_line("^other: ")
    server.wait_for_line("^failed$", after=len(["listening", "serving", "failed"]))
    server = server.move(dst)
    for partner in (first, second):
        _try_again(partner, server)
    server = server.move(peer)
    # A partner that moves goes on with what it was told.
    moved = first.move(src)
    for partner in (moved, second):
        _try_again(partner, server)
    assert [*first.lines(), *moved.lines()] == 3 * _AS_IT_SHOULD_BE
    assert second.lines() == 3 * _AS_IT_SHOULD_BE
