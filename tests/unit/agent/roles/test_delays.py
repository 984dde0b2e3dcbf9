"""What keeps a migration from its end is in the agent's log once, with what a person can do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from cluster import SHORT, Cluster, dropping
from guest_process import PATIENT_S
from moves import Move
from records import source_data

from migrrdma_runtime.agent.roles.records import Record
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.telling import tell_until_all_know

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def delays(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for one in caplog.records if " waits: " in (text := one.getMessage())]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it


def test_a_partner_that_cannot_be_told(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with dropping(move.dst, "switch", reply=False) as lost:
            await move.restore()
            await until(lambda: len(lost) > 5)
        await move.both_go_on_after_the_move()
        migration = move.document["migration"]
        [said] = delays(caplog)
        assert said.startswith(f"migration {migration} waits: ")
        assert f"abandon --lost --role destination {migration}" in said

    play(scenario)


def test_a_source_that_cannot_be_told(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with dropping(move.dst, "finish", reply=False) as lost:
            await move.restore()
            await until(lambda: len(lost) > 3)
        await until(lambda: move.src.state() == {"source": "done"})
        [said] = delays(caplog)
        assert "If that host is lost for good: migrrdma migration abandon --lost --role destination" in said

    play(scenario)


def test_a_process_that_does_not_come_back(caplog: pytest.LogCaptureFixture) -> None:
    """It lives, and is not connected: nothing would say so, ever."""
    name = f"{1:016x}"
    record: Any = Record("0" * 16, State.UNDONE, source_data())
    record.data.pending = [name]
    asked: list[str] = []

    def find(_container: str, _name: str, _process: object) -> None:
        asked.append(_name)
        if len(asked) == 5:
            record.data.pending = []

    agent: Any = SimpleNamespace(
        guests=SimpleNamespace(find=find),
        containers=SimpleNamespace(is_alive=lambda _: True),
        config=SimpleNamespace(deadlines=SHORT),
    )

    async def settle(*_: Any) -> None:
        raise AssertionError("there is nobody")

    asyncio.run(tell_until_all_know(agent, record, settle))
    [said] = delays(caplog)
    assert "is not connected to the agent. Way out: By itself: each process is told again" in said
    assert "kill -CONT" in said
