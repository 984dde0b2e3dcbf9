"""A container that moves between movers, for what is tried with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster
from guest_process import PATIENT_S
from moving import Moving

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]
Scenario = Callable[[Moving], Awaitable[None]]


@pytest.fixture(name="with_movers")
def _with_movers(play: Play) -> Callable[[Scenario], None]:
    def run(scenario: Scenario) -> None:
        async def script(cluster: Cluster) -> None:
            moving = await Moving.begin(cluster)
            try:
                async with asyncio.timeout(PATIENT_S):
                    await scenario(moving)
            finally:
                await moving.end()

        play(script)

    return run
