"""What a container that lies about its datagrams can do to others, and who has never sent any to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from cluster import Cluster, Host, hexadecimal
from guest_process import PATIENT_S, GuestProcess
from moves import Move

from migrrdma_runtime.agent.local.guest_objects import (
    Address,
    AddressKind,
    Context,
    Inventory,
    QPName,
    QueuePair,
)
from migrrdma_runtime.agent.roles import partner
from migrrdma_runtime.agent.roles.checkpoint_document import _describe_contexts
from migrrdma_runtime.agent.roles.participants import Mover, find_participants
from migrrdma_runtime.agent.roles.records import PartnerData
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import BusyError, GuestError, MigrRDMAError
from migrrdma_runtime.wire import agent_messages, manifest

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_UD = 4
_OWN, _PEER, _FORMER, _BLIND = 1, 2, 3, 4


def _pair(host: Host, qpn: int) -> dict[str, Any]:
    gid = hexadecimal(host.gid)
    return {"context": 1, "vqpn": qpn, "pqpn": qpn, "type": _UD, "dest_pqpn": 0, "sgid": gid, "dgid": gid}


def _address(kind: int, gid: str, **more: Any) -> dict[str, Any]:
    return {"context": 1, "kind": kind, "vgid": hexadecimal(gid), "gid": hexadecimal(gid), **more}


def _entry(guest: GuestProcess, qpn: int) -> dict[str, Any]:
    """What the kernel says of a UD queue pair."""
    return {"ifname": "rxe0", "lqpn": qpn, "pid": guest.pid, "comm": "app", "type": "UD", "state": "RTS"}


async def _talker(
    cluster: Cluster,
    host: Host,
    container: str,
    name: str,
    *peers: str,
    own: str = "",
    qpn: int = 0x31,
    more: tuple[dict[str, Any], ...] = (),
    token: str = "",
    **spec: Any,
) -> GuestProcess:
    addresses = [
        _address(_OWN, own or host.gid, port=1, index=1),
        *(_address(_PEER, one) for one in peers),
        *more,
    ]
    return await cluster.guest(
        host, container, token or name * 16, [_pair(host, qpn)], addresses=addresses, **spec
    )


async def _hosts(cluster: Cluster) -> tuple[Host, Host, Host]:
    src, dst, peer = [
        await cluster.host(name, number) for number, name in enumerate(("src", "dst", "peer"), 2)
    ]
    return src, dst, peer


def test_a_container_that_lists_anothers_gid_is_not_sent_what_was_for_that_one(play: Play) -> None:
    """The number is its own by the kernel's word, on its device; on another device of the host it is a stranger's."""

    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = cluster.prepare("src", 2), cluster.prepare("dst", 3), cluster.prepare("peer", 4)
        # Of the host's second device.
        victim = gids.from_address(ipaddress.ip_address("127.0.0.12"))
        for host in (dst, peer, src):
            host.config = dataclasses.replace(
                host.config, peers=(("127.0.0.12/32", f"127.0.0.2:{cluster.port}"),)
            )
            await host.start()
        liar = await _talker(cluster, src, "c1", "a", peer.gid, own=victim)
        src.resources.pairs = [_entry(liar, 0x31)]
        client = await _talker(cluster, peer, "p1", "b", victim)
        move = Move(cluster, src, dst, peer, liar, client)
        with pytest.raises(GuestError, match=r"GID 127\.0\.0\.12, which is not that device's"):
            await move.checkpoint()
            await move.restore()
            told = (await client.show())["places"]
            raise AssertionError(f"the stranger's client was told {told}")
        assert "QUIESCE" not in client.asked

    play(scenario)


class _Lies:
    """A guest that lists the same things again and again."""

    name = "a" * 16

    def __str__(self) -> str:
        return "process 7 (lies) in container c1"


def test_the_same_numbers_listed_again_and_again_take_no_memory(play: Play) -> None:
    """An answer may have 65,536 queue pairs and 131,072 addresses: their product is made before it is counted."""

    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 2)
        gid = src.gid
        pair = QueuePair(QPName(1, 0x31), 0x31, 0, _UD, 3, 0, 0, 1, 1, gid, gid, 0, 1)
        own = [Address(1, AddressKind.OWN, 1, index, gid, gid) for index in range(600)]
        guest: Any = _Lies()
        mover = Mover(guest, Inventory({}, ()), [Context(1, "rxe0", "rxe0", 1)], [pair] * 600, own)
        tracemalloc.start()
        try:
            with pytest.raises(GuestError, match="more queue pairs for datagrams"):
                await find_participants(src.agent, [mover])
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 16 << 20, f"{most >> 20} MiB for 600 × 600; an answer may have 65,536 × 131,072"

    play(scenario)


class _Walked(list[Any]):
    """A list that knows how often it has been walked through."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()


def test_what_a_process_lists_of_one_kind_is_not_walked_through_for_each_of_another() -> None:
    """Of 256 contexts, 65,536 queue pairs and 131,072 addresses two would keep the agent for minutes."""
    gid = gids.from_address(ipaddress.ip_address("127.0.0.2"))
    pair = QueuePair(QPName(1, 0x31), 0x31, 0, 2, 3, 7, 7, 1, 1, gid, gid, 0, 1)
    own = _Walked(Address(1, AddressKind.OWN, 1, index, gid, gid) for index in range(100))
    pairs, contexts = _Walked([pair] * 100), [Context(number, "rxe0", "rxe0", 1) for number in range(100)]
    guest: Any = _Lies()
    mover = Mover(guest, Inventory({}, ()), contexts, pairs, own)
    assert mover.datagrams == []
    assert (pairs.walks, own.walks) == (1, 1)
    described = _describe_contexts(mover, {}, frozenset({AddressKind.OWN}))
    assert [len(one["gids"]) for one in described] == [0, 100, *[0] * 98]
    assert (pairs.walks, own.walks) == (2, 2)


def test_no_more_agents_are_asked_at_once_than_there_can_be(play: Play) -> None:
    """An address costs a process one record of an answer, and the agent a connection."""

    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 2)
        agent, under_way, most = src.agent, 0, 0

        async def ask(_address: str, *_: Any) -> Any:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return {"name": "src", "version": -1}

        agent.transport.ask = ask  # type: ignore[assignment]
        peers = [gids.from_address(ipaddress.IPv4Address(0x0A000001 + n)) for n in range(20_000)]
        guest: Any = _Lies()
        for kind in (AddressKind.PEER, AddressKind.FORMER):
            addresses = [Address(1, kind, 0, 0, one, one) for one in peers]
            with contextlib.suppress(MigrRDMAError):
                await find_participants(agent, [Mover(guest, Inventory({}, ()), [], [], addresses)])
            assert most <= 4096, f"{most} at once; an answer may have 131,072 addresses"

    play(scenario)


def test_who_has_no_queue_pair_for_datagrams_is_not_asked_whom_it_sends_any_to(play: Play) -> None:
    """Its verbs wait for as long as it answers, for every checkpoint of a stranger."""

    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        mover = await _talker(cluster, src, "c1", "a", peer.gid)
        client = await _talker(cluster, peer, "p1", "b", src.gid)
        busy = await cluster.guest(peer, "p2", "d" * 16, [])
        peer.resources.pairs = [_entry(client, 0x31), {**_entry(busy, 0x32), "type": "RC", "rqpn": 7}]
        move = Move(cluster, src, dst, peer, mover, client)
        await move.checkpoint()
        assert "LIST_ADDRESSES" in client.asked
        assert "LIST_ADDRESSES" not in busy.asked

    play(scenario)


def test_what_is_said_of_datagrams_counts_for_what_a_message_holds(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restore says it to every partner: it would be refused there, when the dump has ended the container."""

    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        mover = await cluster.guest(
            src,
            "c1",
            "a" * 16,
            [_pair(src, 0x31 + n) for n in range(100)],
            addresses=[_address(_OWN, src.gid, port=1, index=1), _address(_PEER, peer.gid)],
        )
        client = await _talker(cluster, peer, "p1", "b", src.gid)
        monkeypatch.setattr(agent_messages, "MAX_BYTES", 80_000)
        move = Move(cluster, src, dst, peer, mover, client)
        with pytest.raises(GuestError, match="100 queue pairs for datagrams"):
            await move.checkpoint()

    play(scenario)


@pytest.mark.parametrize(
    "change", [{"port": 7}, {"index": 1 << 70}, {"context": 9}, {"process": "c" * 16}, {"vqpn": 1}]
)
def test_a_checkpoint_that_names_datagrams_of_nobody_is_refused_by_name(
    play: Play, change: dict[str, Any]
) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        mover = await _talker(cluster, src, "c1", "a", peer.gid)
        client = await _talker(cluster, peer, "p1", "b", src.gid)
        move = Move(cluster, src, dst, peer, mover, client)
        await move.checkpoint()
        document = {key: one for key, one in move.document.items() if key not in ("digest", "version")}
        document["datagrams"] = [{**document["datagrams"][0], **change}]
        move.document = manifest.seal(document)
        with pytest.raises(MigrRDMAError, match="of the checkpoint"):
            await move.restore()

    play(scenario)


def test_a_restored_process_that_gives_anothers_number_is_refused(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        mover = await _talker(cluster, src, "c1", "a", peer.gid)
        client = await _talker(cluster, peer, "p1", "b", src.gid)
        other = await _talker(cluster, dst, "v1", "e", peer.gid, qpn=0x3031)
        dst.resources.pairs = [_entry(other, 0x3031)]
        move = Move(cluster, src, dst, peer, mover, client)
        await move.checkpoint()
        with pytest.raises(MigrRDMAError, match=f"lists QP 0x3031 of rxe0, which is process {other.pid}"):
            await move.restore()
        assert "PLACES" not in client.asked

    play(scenario)


def test_what_many_are_told_is_made_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,096 places it takes a twentieth of a second, and a container has a thousand processes to be told."""

    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        mover = await _talker(cluster, src, "c1", "a", peer.gid)
        clients = [await _talker(cluster, peer, f"p{n}", f"{n}", src.gid, qpn=0x50 + n) for n in range(8)]
        move = Move(cluster, src, dst, peer, mover, clients[0])
        await move.checkpoint()
        packed = gids.packed
        made: list[str] = []

        def count(gid: str) -> bytes:
            made.append(gid)
            return packed(gid)

        monkeypatch.setattr(gids, "packed", count)
        await move.restore()
        for client in clients:
            assert (await client.show())["places"]
        # As an application knows it and as the network does; for them, for the restored process, and some to spare.
        told = [one for one in made if one == src.gid]
        assert len(told) <= 2 * 2 + 4, f"{len(told)} times for {len(clients)} processes"

    play(scenario)


@pytest.mark.parametrize("fault", ["PLACES silent", "PLACES it has no room", "RESUME silent", ""])
def test_who_only_sends_datagrams_there_keeps_no_move_from_its_end(play: Play, fault: str) -> None:
    """It may be anybody's process on that host, and is told until it has heard."""

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=1)
        src, dst, peer = await _hosts(cluster)
        mover = await _talker(cluster, src, "c1", "a", peer.gid)
        client = await _talker(cluster, peer, "p1", "b", src.gid)
        stranger = await _talker(cluster, peer, "p2", "d", src.gid, qpn=0x32, reconnects=bool(fault))
        move = Move(cluster, src, dst, peer, mover, client)
        await move.checkpoint()
        if fault:
            await stranger.tell(f"fault {fault}")
        else:  # it stays away while it lives
            await stranger.tell("disconnect")
            await stranger.until(lambda: {"disconnected": True} in stranger.events)
        await move.restore()
        assert (await client.show())["places"]
        await stranger.tell("connect" if not fault else "show")
        async with asyncio.timeout(PATIENT_S):
            while peer.agent.store.all(PartnerData)[0].data.pending:
                await asyncio.sleep(0.02)
        assert (await stranger.show())["places"] == (await client.show())["places"]

    play(scenario)


def test_two_containers_that_the_same_process_sends_to_wait_for_their_restores_at_the_same_time(
    play: Play,
) -> None:
    """Whoever says that it sends to both of them couples what has nothing to do with each other."""

    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        movers = [await _talker(cluster, src, f"c{n}", f"{n}", peer.gid, qpn=0x30 + n) for n in (1, 2)]
        client = await _talker(cluster, peer, "p1", "b", src.gid, qpn=0x50)
        moves = [
            Move(cluster, src, dst, peer, mover, client, container=f"c{n}", lands_in=f"c{n}+")
            for n, mover in enumerate(movers, 1)
        ]
        for move in moves:
            await move.checkpoint()
        for move in reversed(moves):
            await move.restore()
            [place] = (await client.show())["places"]
            assert (place["vqpn"], place["new_qpn"]) == (
                move.image[0]["vqpn"],
                0x3000 + move.image[0]["pqpn"],
            )
        assert "QUIESCE" not in client.asked
        assert client.asked[-4:] == ["PLACES", "RESUME"] * 2

    play(scenario)


def test_who_only_hears_of_two_that_end_at_once_is_told_of_one_after_the_other(play: Play) -> None:
    """A list that is not taken up yet is replaced by the next one."""

    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        movers = [await _talker(cluster, src, f"c{n}", f"{n}", peer.gid, qpn=0x30 + n) for n in range(1, 5)]
        client = await _talker(cluster, peer, "p1", "b", src.gid, qpn=0x50)
        moves = [
            Move(cluster, src, dst, peer, mover, client, container=f"c{n}", lands_in=f"c{n}+")
            for n, mover in enumerate(movers, 1)
        ]
        for move in moves:
            await move.checkpoint()
        await asyncio.gather(*(move.restore() for move in moves))
        assert client.asked[-8:] == ["PLACES", "RESUME"] * 4

    play(scenario)


async def _suspend(src: Host, peer: Host, number: int, datagrams: int) -> dict[str, Any]:
    """What an agent asks of another one, as often as it likes, of a container with so many queue pairs."""
    request = {
        "migration": f"{number:016x}",
        "source": src.agent.contact.as_message(),
        "key_digest": "0" * 64,
        "connections": [],
        "datagrams": [{"vgid": src.gid, "vqpn": one, "gid": src.gid, "qpn": one} for one in range(datagrams)],
    }
    return await src.agent.ask(peer.agent.contact, "suspend", request)


def test_another_agent_fills_no_memory_with_what_has_ended(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has ended is kept for a week: without what was long in it, and so many."""
    monkeypatch.setattr(partner, "_MOST_ENDED", 3)

    async def scenario(cluster: Cluster) -> None:
        src, _, peer = await _hosts(cluster)
        await _talker(cluster, peer, "p1", "b", src.gid)
        for number in range(6):
            assert (await _suspend(src, peer, number, 100))["processes"]
            await src.agent.ask(peer.agent.contact, "undo", {"migration": f"{number:016x}"})
        kept = peer.agent.store.all(PartnerData)
        assert [int(one.id) for one in kept] == [3, 4, 5]
        assert [one.data.datagrams for one in kept] == [[]] * 3

    play(scenario)


def test_nor_with_what_waits(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partner, "_MOST_OPEN", 250)

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(ask=60)  # nobody is asked how it stands
        src, dst, peer = await _hosts(cluster)
        await _talker(cluster, peer, "p1", "b", src.gid, more=(_address(_PEER, dst.gid),))
        for number in range(2):
            await _suspend(src, peer, number, 100)
        with pytest.raises(BusyError, match="of src with 200 queue pairs for datagrams wait already"):
            await _suspend(src, peer, 2, 100)
        await _suspend(dst, peer, 3, 100)  # another one's

    play(scenario)


def test_what_is_told_in_the_end_is_not_kept_either(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = await _hosts(cluster)
        mover = await _talker(cluster, src, "c1", "a", peer.gid)
        client = await _talker(cluster, peer, "p1", "b", src.gid)
        move = Move(cluster, src, dst, peer, mover, client)
        await move.checkpoint()
        await move.restore()
        [record] = peer.agent.store.all(PartnerData)
        assert (record.data.pending, record.data.places, record.data.datagrams) == ([], [], [])

    play(scenario)
