"""The rack as fixtures. A rack that does not come up fails the tests; nothing here skips."""

from __future__ import annotations

from pathlib import Path

import pytest
from migrrdma_lab.choice import RACKS, choose_rack
from migrrdma_lab.rack import Rack


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the rack's tests time, and leave out those that need what the chosen rack does not offer.

    Docker commands take seconds to tens of seconds in emulation, and the first test builds the rack.
    """
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    offers = choose_rack().offers
    known = frozenset().union(*(rack.offers for rack in RACKS.values()))
    lacking = []
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))
        needs = {need for marker in item.iter_markers("needs") for need in marker.args}
        if needs - known:
            raise pytest.UsageError(
                f"{item.nodeid} needs {', '.join(sorted(needs - known))}, which no rack offers"
            )
        if needs - offers:
            lacking.append(item)
    if lacking:
        config.hook.pytest_deselected(items=lacking)
        items[:] = [item for item in items if item not in lacking]


@pytest.fixture(scope="session")
def rack() -> Rack:
    """Three nodes, up, with this working tree's build."""
    rack = choose_rack()
    rack.up()
    rack.install()
    return rack
