"""A second move, and every further one: of the container, of its partner, there and back.

What the agents say and ask about a connection is where it leads now, not where it led when it was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster, keep_alive
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.base.errors import MigrRDMAError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def go(move: Move) -> Move:
    await move.checkpoint()
    await move.restore()
    await move.both_go_on_anew()
    return move


def test_a_container_moves_on_and_on(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        first = await go(await Move.begin(cluster))
        third = await cluster.host("third", 5)
        second = await go(first.onward(third))
        back = await go(second.onward(first.dst))
        await go(back.onward(first.src))

    play(scenario)


def test_a_container_moves_forth_and_back(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        src, dst = move.src, move.dst
        await go(move)
        for host in (src, dst, src, src):
            move = await go(move.onward(host))

    play(scenario)


def test_both_ends_move_in_turn(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        src, peer = move.src, move.peer
        third = await cluster.host("third", 5)
        await go(move)
        partner = await go(move.other_end(third))
        again = await go(partner.other_end(src, container="c2"))
        home = await go(again.other_end(peer, container="p1+"))
        await go(home.onward(third))

    play(scenario)


def test_a_failed_further_move_leaves_everything_where_it_is(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await go(await Move.begin(cluster))
        failed = move.onward(move.src)
        await failed.checkpoint(succeeded=False)
        await move.both_go_on_anew()
        again = move.onward(move.src)
        await again.checkpoint()
        with pytest.raises(MigrRDMAError):
            await again.restore(succeeded=False)
        await again.restore()
        await again.both_go_on_anew()

    play(scenario)


def test_a_restore_that_failed_after_the_partners_prepared_is_tried_again(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        for attempt in range(1, 4):
            move.dst.kill_at = "destination: commit"
            async with keep_alive(move.dst):
                with pytest.raises(MigrRDMAError):
                    await move.restore()  # what it restored is killed, the next one is another process
                await asyncio.wait_for(move.dst.alive.wait(), PATIENT_S)
            assert move.partner.asked.count("PREPARE") == attempt
        await move.restore()
        await move.both_go_on_anew()
        assert move.partner.asked.count("PREPARE") == attempt + 1
        assert "UNDO" not in move.partner.asked

    play(scenario)


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_partners_agent_is_restarted_while_its_guest_is_quiesced(play: Play, succeeded: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        with move.src.connect() as agent:
            ready = await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
            assert ready is not None
            move.document = ready["manifest"]
            move.image = (await move.mover.show())["image"]
            # A partner waits for its agent, longer than an agent does; who is to be moved, only until it is undone.
            assert (await move.partner.show())["waits_alone"] > cluster.deadlines.partner
            assert (await move.mover.show())["waits_alone"] == 0
            await move.peer.stop()
            if succeeded:
                await move.mover.kill()
            await asyncio.to_thread(agent.report, ready["migration"], succeeded=succeeded)
        await move.peer.start()
        if succeeded:
            await move.partner.until(lambda: move.partner.events.count({"welcome": True}) == 2)
            assert (await move.partner.show())["state"] == 3
            await move.restore()
            await move.both_go_on_anew()
        else:
            await move.both_go_on_as_before()  # the new agent has asked what became of it

    play(scenario)
