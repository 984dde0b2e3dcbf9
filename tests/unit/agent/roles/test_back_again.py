"""A process that has moved away and come back, and what is still on the disk of its first stay.

It has its name still, in the same container, and may wait for another migration's end. The first one's is not its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.roles.store import Store

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it


async def comes_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kill_at: str
) -> tuple[Move, Move, Any]:
    """Its two moves to ``dst``: of the first one the end found no room there, in the second the agent is killed."""
    first = await Move.begin(cluster)
    dst, third = first.dst, await cluster.host("third", 5)
    real = Store._transaction

    def full(store: Store) -> Any:
        if store is dst.agent.store:
            raise sqlite3.OperationalError("database or disk is full")
        return real(store)

    def fill(step: str) -> None:
        if step == "destination: committed":
            monkeypatch.setattr(Store, "_transaction", full)

    await first.checkpoint()
    dst.on_fault_point = fill
    await first.restore()
    await first.both_go_on_after_the_move()
    await until(lambda: first.src.state() == {"source": "done"})
    monkeypatch.setattr(Store, "_transaction", real)
    dst.on_fault_point = lambda _: None
    away = first.onward(third)
    await away.checkpoint()
    await away.restore()
    await away.both_go_on_anew()
    back = away.onward(dst)
    back.lands_in = first.lands_in
    await back.checkpoint()
    dst.kill_at = kill_at
    call = asyncio.ensure_future(back.restore())
    await dst.killed.wait()
    return first, back, call


def test_it_does_not_go_on_before_its_own_commit(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, back, call = await comes_back(cluster, monkeypatch, "destination: committed")
        assert back.restored is not None
        welcomes = back.restored.events.count({"welcome": True})
        await back.src.stop()  # whether it is committed cannot be learnt
        await back.dst.restart()
        assert back.dst.state(back.document["migration"]) == {"destination": "committing"}
        restored = back.restored
        await restored.until(lambda: restored.events.count({"welcome": True}) > welcomes)
        await until(lambda: back.dst.state(first.document["migration"]) == {"destination": "done"})
        await restored.show()
        assert "RESUME" not in restored.asked
        await back.src.start()
        await back.both_go_on_anew()
        await call

    play(scenario)


def test_it_is_not_forgotten_with_the_one_that_has_ended(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, back, call = await comes_back(cluster, monkeypatch, "destination: switch")
        assert back.restored is not None
        os.kill(back.restored.pid, signal.SIGSTOP)  # it is about to look whether it is called
        await back.dst.restart()
        await until(lambda: back.dst.state(first.document["migration"]) == {"destination": "done"})
        os.kill(back.restored.pid, signal.SIGCONT)
        await back.both_go_on_anew()
        await call

    play(scenario)
