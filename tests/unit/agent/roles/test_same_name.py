"""Processes outside of containers have nothing in common: one that has the name of another takes nothing from it.

Whoever has faced a process knows its name.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

from cluster import Cluster, ends
from moves import Move

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def with_a_partner_outside(cluster: Cluster) -> Move:
    """Its mover is in a container, and its partner in none."""
    src, dst, peer = [
        await cluster.host(name, number) for number, name in enumerate(("src", "dst", "peer"), 2)
    ]
    mover = await cluster.guest(src, "c1", "a" * 16, ends(src, 0x11, peer, 0x21, 2))
    partner = await cluster.guest(peer, "", "b" * 16, ends(peer, 0x21, src, 0x11, 2))
    return Move(cluster, src, dst, peer, mover, partner)


def test_another_process_of_that_name_keeps_nobody_from_its_agent(play: Play) -> None:
    """Whoever was first after an agent's restart had the name for as long as it liked."""

    async def scenario(cluster: Cluster) -> None:
        move = await with_a_partner_outside(cluster)
        await move.peer.stop()
        os.kill(move.partner.pid, signal.SIGSTOP)  # the other one is there before it
        try:
            await move.peer.start()
            other = await cluster.guest(move.peer, "", move.partner.name, [])
        finally:
            os.kill(move.partner.pid, signal.SIGCONT)
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()
        assert not {"PREPARE", "CONNECT", "RESUME"} & set(other.asked), other.asked

    play(scenario)


def test_another_process_of_that_name_is_not_connected_to_what_was_restored(play: Play) -> None:
    """It was there before the partner when the agent had been restarted, and got the keys of what had moved."""

    async def scenario(cluster: Cluster) -> None:
        move = await with_a_partner_outside(cluster)
        await move.checkpoint()
        seen = (await move.partner.show())["image"]  # the numbers: what a process lists is its own choice
        await move.peer.stop()
        os.kill(move.partner.pid, signal.SIGSTOP)
        try:
            await move.peer.start()
            other = await cluster.guest(move.peer, "", move.partner.name, seen, state=3)
        finally:
            os.kill(move.partner.pid, signal.SIGCONT)
        await move.restore()
        await move.both_go_on_after_the_move()
        assert not {"PREPARE", "CONNECT", "RESUME"} & set(other.asked), other.asked

    play(scenario)


def test_another_process_of_that_name_that_waits_for_a_move_lets_the_partner_take_part_in_one(
    play: Play,
) -> None:
    """It could be the partner of a container that is never restored."""

    async def scenario(cluster: Cluster) -> None:
        move = await with_a_partner_outside(cluster)
        mover = await cluster.guest(move.dst, "c1", "c" * 16, ends(move.dst, 0x31, move.peer, 0x41, 2))
        other = await cluster.guest(
            move.peer, "", move.partner.name, ends(move.peer, 0x41, move.dst, 0x31, 2)
        )
        await Move(cluster, move.dst, move.src, move.peer, mover, other).checkpoint()
        await move.checkpoint()

    play(scenario)


def test_another_process_of_that_name_that_runs_does_not_end_the_partners_migration(play: Play) -> None:
    """The partner waits; one of its name that does not wait would have gone on without it."""

    async def scenario(cluster: Cluster) -> None:
        move = await with_a_partner_outside(cluster)
        await move.checkpoint()
        await cluster.guest(move.peer, "", move.partner.name, [])
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)
