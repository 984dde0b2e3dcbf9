"""How long each test goes on: `make test` gives it a minute, `make soak` an hour and new input each time.

What the soak finds becomes a test of its own: a change that is being tested is not to fail for what was there before.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import cluster
import pytest
from cluster import Cluster
from fuzzing import Fuzzer

Scenario = Callable[[Cluster], Awaitable[None]]

_SHORT_S, _LONG_S = 60, 3600


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    if config.getoption("--soak"):
        for item in items:
            if item.path.parent.name == "fuzz":
                item.add_marker(pytest.mark.timeout(_LONG_S + 600))


@pytest.fixture
def fuzzer(request: pytest.FixtureRequest) -> Fuzzer:
    if request.config.getoption("--soak"):
        return Fuzzer(_LONG_S, os.urandom(8).hex())
    return Fuzzer(_SHORT_S)


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario on a cluster that is taken down afterwards."""
    return lambda scenario: cluster.play(tmp_path, scenario)
