"""Processes whose regions were within bounds one by one before the dump are so after it: nothing undoes that."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrrdma_runtime.agent.local import budget
from migrrdma_runtime.agent.local.budget import Budget
from migrrdma_runtime.agent.local.guest_objects import Domain
from migrrdma_runtime.agent.local.usable_keys import Numbers
from migrrdma_runtime.agent.peers.agent_config import Deadlines
from migrrdma_runtime.agent.roles.reconnection import Reconnection
from migrrdma_runtime.agent.roles.this_agent import ThisAgent

_REGIONS = 60


class _Restored:
    """A process that takes its container's budget for as long as it answers, as `Guest` does."""

    def __init__(self, name: str, shared: Budget) -> None:
        self.name = name
        self._shared = shared

    async def remote_numbers(self, _timeout: float) -> tuple[dict[Domain, Numbers], dict[Domain, Numbers]]:
        self._shared.take(_REGIONS)
        await asyncio.sleep(0)  # the others' turn
        self._shared.give_back(_REGIONS)
        return {(1, 1): [(key, key) for key in range(_REGIONS)]}, {}


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_no_more_regions_are_asked_for_at_once_than_a_container_may_answer(
    monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(budget, "MOST_OF_A_CONTAINER", 2 * _REGIONS)
    names = [f"{number:016x}" for number in range(processes)]
    document: dict[str, Any] = {
        "guests": [{"process": name, "objects": {"keys": _REGIONS}} for name in names]
    }
    agent = cast("ThisAgent", SimpleNamespace(config=SimpleNamespace(deadlines=Deadlines())))
    shared = Budget("c1")
    keys = asyncio.run(
        Reconnection(agent, document).remote_keys([cast("Any", _Restored(name, shared)) for name in names])
    )
    assert len(keys) == processes
