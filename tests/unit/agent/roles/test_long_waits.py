"""A checkpoint may wait for weeks: nothing that is said about it afterwards is longer than a message may say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cluster import Cluster
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.roles.records import PartnerData

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_WEEKS_S = 3 * 7 * 86400


def test_a_checkpoint_that_has_waited_for_weeks(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        [record] = move.peer.agent.store.all(PartnerData)
        assert record.data.quiesced_monotonic is not None
        record.data.quiesced_monotonic -= _WEEKS_S
        await move.restore()
        await move.both_go_on_after_the_move()
        async with asyncio.timeout(PATIENT_S):
            while move.src.state() != {"source": "done"}:
                await asyncio.sleep(0.02)  # an agent's own state: no message tells of it

    play(scenario)
