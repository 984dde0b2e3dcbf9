"""What the nodes of a rack begin with."""

from __future__ import annotations

import pytest
from migrrdma_lab.docker_state import docker_state
from migrrdma_lab.plan import DEFAULT_RELEASE, RELEASES, Places
from migrrdma_lab.qemu.disk import node_image


def test_nodes_that_have_the_applications_are_other_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(RELEASES[DEFAULT_RELEASE])
    monkeypatch.delenv("APPLICATIONS", raising=False)
    without = docker_state(places), node_image(places)
    monkeypatch.setenv("APPLICATIONS", "1")
    assert docker_state(places) != without[0]
    assert node_image(places) != without[1]
