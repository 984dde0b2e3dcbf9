"""A partner is told the remote keys, and shared queues, that it can use, and no others: nor is its agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster, ends
from guest_process import GuestProcess
from moves import Move

from migrrdma_runtime.agent.local.usable_keys import NO_KEY, NO_SRQ
from migrrdma_runtime.wire import remote_keys

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_READ, _WRITE, _LOCAL = 4, 2, 1

_REGIONS = [
    {"context": 1, "pd": 1, "access": _WRITE, "vrkey": 0x100, "prkey": 0x1100},
    {"context": 1, "pd": 2, "access": _WRITE, "vrkey": 0x200, "prkey": 0x1200},
    {"context": 1, "pd": 1, "access": _LOCAL, "vrkey": 0x300, "prkey": 0x1300},
    # On the new device it has the number that the region before had, which the partners' applications may hold.
    {"context": 1, "pd": 1, "access": _READ, "vrkey": 0x400, "prkey": 0x300},
]
_OF_DOMAIN_1 = [[0x100, 0x1100], [0x400, 0x300], [0x300, NO_KEY]]
_OF_DOMAIN_2 = [[0x200, 0x1200]]
_SPEC: dict[str, Any] = {"rkeys": [], "mrs": _REGIONS}


def in_domain(pd: int, qps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**qp, "pd": pd} for qp in qps]


def map_of(pd: int, process: str = "a" * 16) -> str:
    """What the fake guest calls the map of a protection domain."""
    return str(int(remote_keys.map_name(process, 1, pd), 16))


async def with_partners_on_two_hosts(cluster: Cluster) -> tuple[Move, GuestProcess]:
    """A process that faces each of its partners in a domain of its own, and the partner beside the move's."""
    src, dst, peer = [await cluster.host(name, 2 + n) for n, name in enumerate(("src", "dst", "peer"))]
    other = await cluster.host("other", 6)
    here = in_domain(1, ends(src, 0x11, peer, 0x21, 1)) + in_domain(2, ends(src, 0x12, other, 0x31, 1))
    mover = await cluster.guest(src, "c1", "a" * 16, here, **_SPEC)
    one = await cluster.guest(peer, "p1", "b" * 16, ends(peer, 0x21, src, 0x11, 1))
    two = await cluster.guest(other, "p2", "d" * 16, ends(other, 0x31, src, 0x12, 1))
    return Move(cluster, src, dst, peer, mover, one, restored_spec=_SPEC), two


def test_partners_in_two_domains_are_told_their_own_keys_move_after_move(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move, two = await with_partners_on_two_hosts(cluster)
        src, dst, peer, one = move.src, move.dst, move.peer, move.partner
        for there in (dst, src):
            move.dst = there
            await move.checkpoint()
            await move.restore()
            assert (await one.show())["keys"] == {map_of(1): _OF_DOMAIN_1}
            assert (await two.show())["keys"] == {map_of(2): _OF_DOMAIN_2}
            assert move.restored is not None
            move = Move(
                cluster, there, src, peer, move.restored, one,
                container=move.lands_in, lands_in=move.lands_in + "+", restored_spec=_SPEC,
            )  # fmt: skip

    play(scenario)


def test_an_agent_is_told_what_its_processes_can_use(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts: the agent of one learns nothing of what only the other's processes can reach."""

    async def scenario(cluster: Cluster) -> None:
        move, _ = await with_partners_on_two_hosts(cluster)
        await move.checkpoint()
        told: dict[str, dict[str, str]] = {}
        ask = move.dst.agent.ask

        async def overhear(contact: Any, name: str, request: Any, *rest: Any) -> Any:
            if name == "prepare":
                told[contact.name] = request["keys"]
            return await ask(contact, name, request, *rest)

        monkeypatch.setattr(move.dst.agent, "ask", overhear)
        await move.restore()
        pairs = {
            name: [list(pair) for pair in next(iter(remote_keys.unpack(maps).values()))]
            for name, maps in told.items()
        }
        assert pairs == {"peer": _OF_DOMAIN_1, "other": _OF_DOMAIN_2}
        assert [len(maps) for maps in told.values()] == [1, 1]

    play(scenario)


def test_one_process_that_faces_two_domains_has_a_map_of_each(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [await cluster.host(name, 2 + n) for n, name in enumerate(("src", "dst", "peer"))]
        first, second = ends(src, 0x11, peer, 0x21, 2)
        mover = await cluster.guest(
            src, "c1", "a" * 16, in_domain(1, [first]) + in_domain(2, [second]), **_SPEC
        )
        partner = await cluster.guest(peer, "p1", "b" * 16, ends(peer, 0x21, src, 0x11, 2))
        move = Move(cluster, src, dst, peer, mover, partner, restored_spec=_SPEC)
        await move.checkpoint()
        await move.restore()
        shown = await partner.show()
        assert shown["keys"] == {map_of(1): _OF_DOMAIN_1, map_of(2): _OF_DOMAIN_2}
        assert [str(qp["peer"]) for qp in shown["qps"]] == [map_of(1), map_of(2)]

    play(scenario)


def test_processes_of_one_container_are_told_their_own_keys(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [await cluster.host(name, 2 + n) for n, name in enumerate(("src", "dst", "peer"))]
        inside = in_domain(2, ends(src, 0x51, src, 0x52, 1)) + in_domain(1, ends(src, 0x52, src, 0x51, 1))
        outside = in_domain(1, ends(src, 0x11, peer, 0x21, 1))
        mover = await cluster.guest(src, "c1", "a" * 16, inside + outside, **_SPEC)
        partner = await cluster.guest(peer, "p1", "b" * 16, ends(peer, 0x21, src, 0x11, 1))
        move = Move(cluster, src, dst, peer, mover, partner, restored_spec=_SPEC)
        await move.checkpoint()
        await move.restore()
        assert move.restored is not None
        shown = await move.restored.show()
        assert [str(qp["peer"]) for qp in shown["qps"]][:2] == [map_of(1), map_of(2)]
        assert shown["keys"] == {map_of(1): _OF_DOMAIN_1, map_of(2): _OF_DOMAIN_2}
        assert (await partner.show())["keys"] == {map_of(1): _OF_DOMAIN_1}

    play(scenario)


_SEND, _TARGET = 9, 10
_QUEUES = [
    {"context": 1, "pd": 3, "access": 0, "vrkey": 0x100, "prkey": 0x500, "kind": 1},
    {"context": 1, "pd": 3, "access": 0, "vrkey": 0x101, "prkey": 0x100, "kind": 1},
]
_TOLD_OF_QUEUES = [[0x100, 0x500], [0x101, 0x100], [0x500, NO_SRQ]]


def of_type(kind: int, domain: int, qps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**qp, "type": kind, "pd": domain} for qp in qps]


def test_who_sends_by_xrc_is_told_of_the_queues_that_it_names_and_the_other_end_is_not(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [await cluster.host(name, 2 + n) for n, name in enumerate(("src", "dst", "peer"))]
        spec = {"rkeys": [], "mrs": [{**_REGIONS[0], "pd": 3}, *_QUEUES]}
        here = of_type(_TARGET, 3, ends(src, 0x11, peer, 0x21, 1)) + of_type(
            _SEND, 0, ends(src, 0x12, peer, 0x22, 1)
        )
        there = of_type(_SEND, 0, ends(peer, 0x21, src, 0x11, 1)) + of_type(
            _TARGET, 4, ends(peer, 0x22, src, 0x12, 1)
        )
        mover = await cluster.guest(src, "c1", "a" * 16, here, **spec)
        partner = await cluster.guest(peer, "p1", "b" * 16, there, rkeys=[])
        move = Move(cluster, src, dst, peer, mover, partner, restored_spec=spec)
        await move.checkpoint()
        await move.restore()
        told = await partner.show()
        assert told["srqs"] == {map_of(3): _TOLD_OF_QUEUES}
        assert told["keys"] == {map_of(3): [[0x100, 0x1100]], map_of(0): []}
        assert move.restored is not None
        assert not (await move.restored.show())["srqs"]

    play(scenario)


def test_a_process_that_faces_itself_by_xrc_is_told_of_its_own_queues(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [await cluster.host(name, 2 + n) for n, name in enumerate(("src", "dst", "peer"))]
        spec = {"rkeys": [], "mrs": _QUEUES}
        here = [
            *of_type(_SEND, 0, ends(src, 0x11, src, 0x12, 1)), *of_type(_TARGET, 3, ends(src, 0x12, src, 0x11, 1)),
            *ends(src, 0x13, peer, 0x21, 1),
        ]  # fmt: skip
        mover = await cluster.guest(src, "c1", "a" * 16, here, **spec)
        partner = await cluster.guest(peer, "p1", "b" * 16, ends(peer, 0x21, src, 0x13, 1))
        move = Move(cluster, src, dst, peer, mover, partner, restored_spec=spec)
        await move.checkpoint()
        await move.restore()
        assert move.restored is not None
        assert (await move.restored.show())["srqs"] == {map_of(3): _TOLD_OF_QUEUES}

    play(scenario)
