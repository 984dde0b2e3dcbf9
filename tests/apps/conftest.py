"""The chosen rack with the images of applications: the fast one, unless ``RACK=emulated``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import applications
import pytest
from migrrdma_lab.plan import OLDER_APPLICATION_IMAGE
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test may build the image."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def rack(chosen_rack: Rack) -> Rack:
    """Three nodes, with this working tree's build."""
    return chosen_rack


@pytest.fixture(scope="module")
def nodes(rack: Rack, src: Shell, dst: Shell, peer: Shell) -> list[Shell]:
    """All of them, with the image."""
    found = [src, dst, peer]
    applications.load_image(rack.places, found)
    return found


@pytest.fixture(scope="module")
def older_nodes(rack: Rack, src: Shell, dst: Shell, peer: Shell) -> list[Shell]:
    """All of them, with the image of the older release."""
    found = [src, dst, peer]
    applications.load_image(rack.places, found, OLDER_APPLICATION_IMAGE)
    return found


@pytest.fixture(autouse=True)
def nothing_left(src: Shell, dst: Shell, peer: Shell) -> Iterator[None]:
    """Take away what a test has started, on whichever node it is by then: its addresses are the next test's."""
    yield
    for node in (src, dst, peer):
        node.sh("docker ps -aq | xargs -r docker rm -f")
