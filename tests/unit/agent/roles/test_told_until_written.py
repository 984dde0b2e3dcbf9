"""A source whose disk is full is told again of what a destination has to tell it: a no is not an answer then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cluster import Cluster
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.errors import MigrRDMAError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


@pytest.fixture
def cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Have the next write of this state of the source's fail."""
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setattr(fault_points, "FOLDER", str(folder))

    def arm(state: str) -> Path:
        path = folder / f"store.source.{state}.before"
        path.touch(0o600)
        path.write_text("error")
        return path

    return arm


async def _until_source_is(move: Move, state: str) -> None:
    async with asyncio.timeout(PATIENT_S):
        while move.src.state() != {"source": state}:
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it


def test_the_end_of_a_restore(play: Play, cannot_write: Callable[[str], Path]) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        armed = cannot_write("done")
        await move.restore()
        await move.both_go_on_after_the_move()
        await _until_source_is(move, "done")
        assert not armed.exists()

    play(scenario)


def test_a_claim_that_is_free(play: Play, cannot_write: Callable[[str], Path]) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        armed = cannot_write("parked")
        with pytest.raises(MigrRDMAError):
            await move.restore(succeeded=False)
        await _until_source_is(move, "parked")
        assert not armed.exists()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)
