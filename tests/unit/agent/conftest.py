"""A cluster of agents for a test to play with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cluster import Cluster

Scenario = Callable[[Cluster], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario on a cluster that is taken down afterwards."""

    async def run(scenario: Scenario) -> None:
        cluster = Cluster(tmp_path)
        try:
            await scenario(cluster)
        finally:
            await cluster.close()

    def play(scenario: Scenario) -> None:
        asyncio.run(run(scenario))

    return play
