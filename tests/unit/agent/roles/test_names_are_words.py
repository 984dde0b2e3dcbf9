"""A process of the host that has the name of another user's: it takes that one's place when the agent is restarted.

Whoever has faced a process knows its name. Processes outside of containers are all of the container "".
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster, ends
from moves import Move

from migrrdma_runtime.base.errors import MigrRDMAError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def test_another_process_of_that_name_is_not_connected_to_what_was_restored(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [
            await cluster.host(name, number) for number, name in enumerate(("src", "dst", "peer"), 2)
        ]
        mover = await cluster.guest(src, "c1", "a" * 16, ends(src, 0x11, peer, 0x21, 2))
        victim = await cluster.guest(peer, "", "b" * 16, ends(peer, 0x21, src, 0x11, 2))
        move = Move(cluster, src, dst, peer, mover, victim)
        await move.checkpoint()
        seen = (await victim.show())["image"]  # the numbers: what a stranger lists is his own choice
        await peer.stop()
        os.kill(
            victim.pid, signal.SIGSTOP
        )  # it looks for an agent once a second: the stranger is there before it
        try:
            await peer.start()
            stranger = await cluster.guest(peer, "", "b" * 16, seen, state=3)
            with pytest.raises(MigrRDMAError, match="is not connected to its agent"):
                await move.restore()
            assert "PREPARE" not in stranger.asked
        finally:
            os.kill(victim.pid, signal.SIGCONT)

    play(scenario)
