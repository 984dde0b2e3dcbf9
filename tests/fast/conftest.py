"""The fast rack as fixtures: it comes to its end with the tests, however they end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import workload
from migrrdma_lab.namespaces.rack import FastRack, owned_by_this_process
from migrrdma_lab.plan import DEFAULT_RELEASE, RELEASES, Places
from migrrdma_lab.shell import Shell


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test may build the rack's images, and the next may make a hundred moves."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def rack() -> Iterator[FastRack]:
    """Three nodes, new, with this working tree's build."""
    rack = owned_by_this_process(Places(RELEASES[DEFAULT_RELEASE], FastRack.kind))
    rack.down()  # one that was left up is another process's
    rack.up()
    yield rack
    rack.down()


@pytest.fixture(scope="module")
def on_the_nodes(src: Shell, dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The integrity workload, for the containers that `workload` and `runtime_container` start."""
    workload.build(tmp_path_factory.mktemp("workload")).put(src, dst, peer)
