"""The rack as fixtures. A rack that does not come up fails the tests; nothing here skips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import DST, PEER, SRC
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Docker commands take seconds to tens of seconds in emulation, the first test builds the rack."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def rack() -> Rack:
    """Three nodes, up, with this working tree's build."""
    rack = Rack()
    rack.up()
    rack.install()
    return rack


@pytest.fixture(scope="session")
def src(rack: Rack) -> Shell:
    return rack.shell(SRC)


@pytest.fixture(scope="session")
def dst(rack: Rack) -> Shell:
    return rack.shell(DST)


@pytest.fixture(scope="session")
def peer(rack: Rack) -> Shell:
    return rack.shell(PEER)


@pytest.fixture
def containers() -> Iterator[Callable[[Container], Container]]:
    """Register a container for removal after the test, on whichever node it is."""
    made: list[Container] = []

    def register(container: Container) -> Container:
        container.remove()  # what a killed test run left behind
        made.append(container)
        return container

    yield register
    for container in made:
        container.remove()
