"""Another agent, with a certificate and a copy of a manifest, asks until somebody answers no more.

Who says that it is asked too much is there; and what comes to nothing leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster, Host
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.peers import allowances, certificates
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.agent.roles import arbiter as arbiter_module
from migrrdma_runtime.agent.roles.records import PartnerData
from migrrdma_runtime.agent.roles.this_agent import boot_clock
from migrrdma_runtime.base.errors import AllowanceError, MigrRDMAError
from migrrdma_runtime.wire import tokens

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def parked(cluster: Cluster) -> tuple[Move, Host]:
    move = await Move.begin(cluster)
    third = await cluster.host("third", 5)
    await move.checkpoint()

    def has_heard() -> bool:
        record = move.peer.agent.store.find(move.document["migration"], PartnerData)
        return record is not None and record.data.parked

    await until(has_heard)
    return move, third


def left(host: Host, peer: str) -> Any:
    assert host.daemon is not None
    return host.daemon._server._allowances.of(peer)


async def say(client: GrpcTransport, move: Move, host: Host, name: str, **more: Any) -> Any:
    request = {
        "migration": move.document["migration"],
        "key": tokens.key_for(move.document["token"], host.name),
        **more,
    }
    return await client.ask(host.agent.contact.address, name, request, PATIENT_S)


def exhaust(host: Host, peer: str) -> None:
    """Have this agent ask so much of that host that it is answered nothing for a while."""
    used = left(host, peer)._requests
    used.missing(0, left(host, peer)._clock())
    used.take(2 * allowances.REQUESTS.most)


def test_a_source_that_is_asked_too_much_is_not_gone(play: Play) -> None:
    """Every `adopt` has the partner ask the source once: whoever says it often uses up what the partner may ask."""

    async def scenario(cluster: Cluster) -> None:
        move, third = await parked(cluster)
        client = GrpcTransport(certificates.load(third.config.tls))
        record = move.peer.agent.store.find(move.document["migration"], PartnerData)
        assert record is not None
        exhaust(move.src, "peer")
        try:
            with pytest.raises(MigrRDMAError, match="it is not gone"):
                await say(
                    client, move, move.peer, "adopt", arbiter=third.agent.contact.as_message(),
                    generation=1, fenced="src",
                )  # fmt: skip
        finally:
            await client.close()
        assert move.src.state() == {"source": "parked"}
        assert record.data.arbiter is None

    play(scenario)


def test_what_is_asked_too_much_is_not_fenced(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move, third = await parked(cluster)
        exhaust(move.src, "third")
        with third.connect() as operator, pytest.raises(MigrRDMAError, match="it is not gone"):
            await asyncio.to_thread(operator.adopt, move.document, "src")
        assert move.src.state() == {"source": "parked"}

    play(scenario)


def test_a_holder_that_is_asked_too_much_keeps_its_claim(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    late = 0.0
    monkeypatch.setattr(arbiter_module, "boot_clock", lambda: boot_clock() + late)

    async def scenario(cluster: Cluster) -> None:
        nonlocal late
        move, third = await parked(cluster)
        client, holding = GrpcTransport(certificates.load(third.config.tls)), asyncio.Event()
        go_on = asyncio.Event()

        async def wait_in_the_restore() -> None:
            holding.set()
            await go_on.wait()

        restored = Move.is_restored

        async def slowly(self: Move, host: Host | None = None) -> None:
            await wait_in_the_restore()
            await restored(self, host)

        monkeypatch.setattr(Move, "is_restored", slowly)
        restore = asyncio.ensure_future(move.restore())
        try:
            await holding.wait()
            late = 10 * move.src.agent.config.deadlines.doubt  # a restore of that length
            exhaust(move.dst, "src")
            answer: Any = None
            with contextlib.suppress(MigrRDMAError):
                answer = await say(
                    client, move, move.src, "claim", attempt="3" * 16,
                    destination=third.agent.contact.as_message(),
                )  # fmt: skip
            assert answer is None, "granted to another agent while its holder lives and answers"
        finally:
            go_on.set()
            await asyncio.gather(restore, return_exceptions=True)
            await client.close()

    play(scenario)


def test_what_nobody_holds_is_released_without_work(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """*release* of a claim that the caller never had, again and again: each would ask every partner."""

    async def scenario(cluster: Cluster) -> None:
        move, third = await parked(cluster)
        client, go_on = GrpcTransport(certificates.load(third.config.tls)), asyncio.Event()
        asked = itertools.count()
        ask = move.src.agent.ask

        async def silent(contact: Any, what: str, request: Any, *more: Any) -> Any:
            if what != "parked":
                return await ask(contact, what, request, *more)
            next(asked)
            await go_on.wait()  # a partner's host that is down: `deadlines.peer` each
            return await ask(contact, what, request, *more)

        monkeypatch.setattr(move.src.agent, "ask", silent)
        try:
            for _ in range(300):
                await say(client, move, move.src, "release", epoch=12345)
            following = len(move.src.agent.tasks._following[move.document["migration"]])
        finally:
            go_on.set()
            await client.close()
        assert following <= 2, f"{following} tasks at once, {next(asked)} requests to its partners"

    play(scenario)


def test_names_of_migrations_that_are_none_are_not_kept(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, third = await cluster.host("src", 2), await cluster.host("third", 5)
        client = GrpcTransport(certificates.load(third.config.tls))
        before = len(src.agent._locks)
        try:
            for number in range(200):
                request = {
                    "migration": f"{number:016x}", "source": third.agent.contact.as_message(),
                    "key_digest": "0" * 64, "connections": [], "datagrams": [],
                }  # fmt: skip
                try:
                    await client.ask(src.agent.contact.address, "suspend", request, PATIENT_S)
                except AllowanceError:
                    break
        finally:
            await client.close()
        assert len(src.agent._locks) - before < 100, len(src.agent._locks)

    play(scenario)
