"""Both racks with the images of applications: each test is run on either of them, or on the one that ``RACK`` names.

On the emulated rack, where Docker takes minutes for a move, `make test` runs the short form of one test for each tool.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import applications
import pytest
from applications import Move, Moves
from bringing_up import bring_up
from migrrdma_lab.choice import RACKS
from migrrdma_lab.plan import OLDER_APPLICATION_IMAGE
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test is one of each rack."""
    racks = [os.environ["RACK"]] if "RACK" in os.environ else sorted(RACKS, reverse=True)
    metafunc.parametrize("rack", racks, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)  # before the long forms are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What `make test` does not run is a long form; and the first test may build the images."""
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1800))
        by_make_test = item.get_closest_marker("by_make_test")
        assert isinstance(item, pytest.Function)
        if by_make_test is None or item.callspec.params["rack"] not in by_make_test.args:
            item.add_marker(pytest.mark.soak)


@pytest.fixture(scope="session")
def rack(request: pytest.FixtureRequest) -> Rack:
    """Three nodes, with this working tree's build."""
    return bring_up(request.param, request)


@pytest.fixture(scope="module")
def on_soft_roce(rack: Rack) -> bool:
    """Whether the device is the kernel's own; else it is the software device of the fast rack."""
    return "kernel-rdma" in rack.offers


@pytest.fixture
def moves(on_soft_roce: bool, src: Shell, dst: Shell, peer: Shell, request: pytest.FixtureRequest) -> Moves:
    """Of the server on the third node and the client on the first: either end, forth and back; or the first of them."""
    ways = (("server", dst), ("client", peer), ("server", src), ("client", dst))
    is_short = on_soft_roce and not request.config.getoption("--soak")
    # Docker packs the images of an emulated node's container for minutes, and unpacks them for as long. Beside a
    # program that polls on the node's only processor memory goes ahead slowly: for that only the long form waits.
    rounds = 0 if is_short else None
    whole = [Move(end, to, live=on_soft_roce, rounds=rounds) for end, to in ways]
    return whole[:1] if is_short else whole


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
