"""A container moves whose partner reaches it through memory windows; its queues are in a parent domain, and moderated.

Then the windows are bound, and the region is registered, anew: under numbers of which nobody has heard before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer
from workload_containers import bring, workload_container

_ADDRESSES = {"windows": "10.78.0.190", "through": "10.78.0.191"}
_KEYS = ["region", "window 1", "window 2"]


@pytest.fixture
def server(src: Shell, dst: Shell, peer: Shell, tmp_path: Path) -> Iterator[RuntimeContainer]:
    """What has the windows, on ``src``; it and its partner can be on every node."""
    with bring("windows", (src, dst, peer), tmp_path, _ADDRESSES, _container):
        yield _container(src, "windows")


def _container(node: Shell, name: str) -> RuntimeContainer:
    words = ["serve"] if name == "windows" else ["reach", _ADDRESSES["windows"]]
    return workload_container(node, "windows", name, _ADDRESSES[name], words)


def _write_by_all(partner: RuntimeContainer, server: RuntimeContainer, signal: str) -> None:
    before, seen = len(partner.lines()), len(server.lines())
    server.shell.run("migrrdma-runtime", "kill", server.name, signal)
    partner.wait_for_line("^window 2: ", after=before)
    assert partner.lines()[before:] == [f"{key}: success" for key in _KEYS]
    server.wait_for_line("^window 2 written$", after=seen)


def test_windows_are_open_move_after_move(
    src: Shell, dst: Shell, peer: Shell, server: RuntimeContainer
) -> None:
    server.run().wait_for_line("^listening$")
    assert server.lines()[0] == "in a parent domain, moderated"
    partner = _container(peer, "through").run()
    partner.wait_for_line("^window 2: ")
    server.wait_for_line("^window 2 written$")
    for node in (dst, src):
        server = server.move(node)
        _write_by_all(partner, server, "USR2")
        _write_by_all(partner, server, "USR1")
    assert server.lines().count("region written") == server.lines().count("window 1 written")
