"""Who learns where queue pairs for datagrams have moved: the processes that have sent to where they were."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster, Host, hexadecimal
from guest_process import GuestProcess
from moves import Move

from migrrdma_runtime.base.errors import AgentError, GuestError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_UD = 4
_OWN, _PEER, _FORMER, _BLIND = 1, 2, 3, 4


def _pair(host: Host, qpn: int) -> dict[str, Any]:
    return {
        "context": 1,
        "vqpn": qpn,
        "pqpn": qpn,
        "type": _UD,
        "dest_pqpn": 0,
        "sgid": hexadecimal(host.gid),
        "dgid": hexadecimal(host.gid),
    }


def _address(kind: int, host: Host, **more: Any) -> dict[str, Any]:
    return {"context": 1, "kind": kind, "vgid": hexadecimal(host.gid), "gid": hexadecimal(host.gid), **more}


def _talk(host: Host, *others: dict[str, Any]) -> list[dict[str, Any]]:
    return [_address(_OWN, host, port=1, index=1), *others]


async def _talker(
    cluster: Cluster, host: Host, container: str, name: str, *others: dict[str, Any], qpn: int = 0x31
) -> GuestProcess:
    return await cluster.guest(host, container, name * 16, [_pair(host, qpn)], addresses=_talk(host, *others))


async def _hosts(cluster: Cluster) -> tuple[Host, Host, Host]:
    src, dst, peer = [
        await cluster.host(name, number) for number, name in enumerate(("src", "dst", "peer"), 2)
    ]
    return src, dst, peer


async def _told(guest: GuestProcess) -> list[tuple[str, int, str, int]]:
    return [
        (one["vgid"], one["vqpn"], one["new_gid"], one["new_qpn"]) for one in (await guest.show())["places"]
    ]


def test_whoever_has_sent_there_is_told_and_nobody_else(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        mover = await _talker(cluster, src, "c1", "a", _address(_PEER, peer))
        partner = await _talker(cluster, peer, "p1", "b", _address(_PEER, src))
        earlier = await _talker(cluster, peer, "p2", "c", _address(_FORMER, src), qpn=0x32)
        stranger = await _talker(cluster, peer, "p3", "d", _address(_PEER, dst), qpn=0x33)
        move = Move(cluster, src, dst, peer, mover, partner)
        await move.checkpoint()
        assert [one["name"] for one in move.document["partners"]] == ["peer"]
        assert (await partner.show())["places"] == []
        await move.restore()
        assert move.restored is not None
        expected = [(hexadecimal(src.gid), 0x31, hexadecimal(dst.gid), 0x3031)]
        for guest in (partner, earlier, move.restored):
            assert await _told(guest) == expected
            assert (await guest.show())["state"] == 1
        assert await _told(stranger) == []
        assert "QUIESCE" not in stranger.asked

    play(scenario)


def test_a_host_from_which_nobody_sends_takes_no_part(play: Play) -> None:
    """Also if it is not there any more, as long as no handle for it is left."""

    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        gone = cluster.prepare("gone", 9)
        mover = await _talker(cluster, src, "c1", "a", _address(_PEER, peer), _address(_FORMER, gone))
        bystander = await _talker(cluster, peer, "p1", "b", _address(_PEER, dst))
        move = Move(cluster, src, dst, peer, mover, bystander)
        await move.checkpoint()
        assert move.document["partners"] == []
        assert peer.state() == {}

    play(scenario)


@pytest.mark.parametrize("at", ["mover", "partner"])
def test_what_could_not_be_told_refuses_the_checkpoint(play: Play, at: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        blind = [_address(_BLIND, src)]
        mover = await _talker(
            cluster, src, "c1", "a", _address(_PEER, peer), *(blind if at == "mover" else ())
        )
        partner = await _talker(
            cluster, peer, "p1", "b", _address(_PEER, src), *(blind if at == "partner" else ())
        )
        move = Move(cluster, src, dst, peer, mover, partner)
        with pytest.raises(GuestError, match="datagrams"):
            await move.checkpoint()
        for guest in (mover, partner):
            assert "QUIESCE" not in guest.asked

    play(scenario)


def test_a_host_that_is_sent_to_and_has_no_agent_refuses_the_checkpoint(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        gone = cluster.prepare("gone", 9)
        mover = await _talker(cluster, src, "c1", "a", _address(_PEER, gone))
        move = Move(cluster, src, dst, peer, mover, mover)
        with pytest.raises(AgentError):
            await move.checkpoint()
        assert "QUIESCE" not in mover.asked

    play(scenario)


def test_whoever_would_have_been_told_of_a_move_that_is_undone_goes_on_as_before(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        mover = await _talker(cluster, src, "c1", "a", _address(_PEER, peer))
        partner = await _talker(cluster, peer, "p1", "b", _address(_PEER, src))
        move = Move(cluster, src, dst, peer, mover, partner)
        await move.checkpoint(succeeded=False)
        assert peer.state() == {"partner": "undone"}
        assert not {"QUIESCE", "PLACES", "UNDO"} & set(partner.asked)

    play(scenario)
