"""The fast rack as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
import workload
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.shell import Shell


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test may build the rack's images, and the next may make a hundred moves."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def rack(fast_rack: FastRack) -> FastRack:
    """Three nodes, new, with this working tree's build."""
    return fast_rack


@pytest.fixture(scope="module")
def on_the_nodes(src: Shell, dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The integrity workload, for the containers that `workload` and `runtime_container` start."""
    workload.build(tmp_path_factory.mktemp("workload")).put(src, dst, peer)
