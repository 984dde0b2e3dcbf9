"""A process that has not yet heard how one migration ended takes part in no other, which that news would disturb."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster, Host, ends
from guest_process import GuestProcess
from moves import Move

from migrrdma_runtime.base.errors import GuestError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_ANOTHER = 0x41


async def _moved(cluster: Cluster, *more: str) -> tuple[Host, Host, Host, Move]:
    """A container has moved, and its partner has answered that it goes on in a moment."""
    cluster.impatient_hosts(ask=0.4, turn=30, drain=0.5, guest=1)
    src, dst, peer = [
        await cluster.host(name, number) for number, name in enumerate(("src", "dst", "peer"), 2)
    ]
    mover = await cluster.guest(src, "c1", "a" * 16, ends(src, 0x11, peer, 0x21, 1))
    pairs = [*ends(peer, 0x21, src, 0x11, 1), *(ends(peer, _ANOTHER, src, 0x31, 1) if more else [])]
    partner = await cluster.guest(peer, "p1", "b" * 16, pairs)
    move = Move(cluster, src, dst, peer, mover, partner)
    await move.checkpoint()
    await partner.tell("fault RESUME twice does-it it is done when a verb that is under way has returned")
    await move.restore()
    return src, dst, peer, move


def _is_left_alone(partner: GuestProcess, since: int, until: str) -> None:
    """Whether what it is told of the next migration comes after the end of the last."""
    told = partner.asked[since:]
    assert "RESUME" not in told[told.index("QUIESCE") : told.index(until)], told


def test_a_partner_is_not_moved_itself_meanwhile(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        _, dst, peer, move = await _moved(cluster)
        assert move.restored is not None
        since = len(move.partner.asked)
        await move.restored.tell("fault QUIESCE silent")  # so that it takes a while
        back = Move(cluster, peer, dst, dst, move.partner, move.restored, container="p1")
        with pytest.raises(GuestError, match="quiesce"):
            await back.checkpoint()
        _is_left_alone(move.partner, since, "UNDO")

    play(scenario)


def test_nor_is_it_anothers_partner(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer, move = await _moved(cluster, "another connection")
        since = len(move.partner.asked)
        other = await cluster.guest(src, "c3", "d" * 16, ends(src, 0x31, peer, _ANOTHER, 1))
        await other.tell("fault QUIESCE silent")
        with pytest.raises(GuestError, match="quiesce"):
            await Move(cluster, src, dst, peer, other, move.partner, container="c3").checkpoint()
        _is_left_alone(move.partner, since, "UNDO")

    play(scenario)
