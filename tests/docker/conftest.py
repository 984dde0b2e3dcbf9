"""The chosen rack as a fixture: the fast one, which has all that these tests need, unless ``RACK=emulated``.

The emulated one has the other Debian release.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from migrrdma_lab.rack import Rack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Docker commands take seconds to tens of seconds in emulation, and the first test may build the rack."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def rack(chosen_rack: Rack) -> Rack:
    """Three nodes, up, with this working tree's build."""
    return chosen_rack
