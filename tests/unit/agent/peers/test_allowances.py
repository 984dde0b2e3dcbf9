"""What one agent may ask of another: the rest of the cluster does not notice one that asks without end."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster, Host
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.peers import allowances, certificates
from migrrdma_runtime.agent.peers.agent_config import TLSFiles
from migrrdma_runtime.agent.peers.allowances import Allowances
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.grpc_transport import GrpcServer, GrpcTransport
from migrrdma_runtime.base.errors import AgentError, AllowanceError, BusyError, GuestError, MessageError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import Message

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

HELLO = {"version": agent_messages.VERSION}


class Clock:
    """A clock that stands unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def insider(cluster: Cluster) -> TLSFiles:
    """Credentials of a host of the cluster."""
    directory = cluster.directory / "tls-insider"
    certificates.issue(cluster.directory / "ca", "insider", ["127.0.0.9"], directory)
    return TLSFiles(*(directory / name for name in ("ca.crt", "agent.crt", "agent.key")))


def suspend(cluster: Cluster, gid: str, connections: list[Message]) -> Message:
    return {
        "migration": "0" * 16,
        "source": {"name": "insider", "address": f"127.0.0.9:{cluster.port}"},
        "key_digest": "0" * 64,
        "datagrams": [],
        "connections": connections or [{"gid": gid, "qpn": 0x21, "peer_gid": NINE, "peer_qpn": 0x11}],
    }


NINE = "0000:0000:0000:0000:0000:ffff:7f00:0009"


async def outcomes(work: list[Awaitable[Any]]) -> Counter[str]:
    """How many of these ended how, by the type of the error."""
    results = await asyncio.gather(*work, return_exceptions=True)
    return Counter(type(one).__name__ for one in results)


def test_bogus_suspends_soon_ask_no_guest_any_more(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        client, address = GrpcTransport(certificates.load(insider(cluster))), move.peer.agent.contact.address
        request = suspend(cluster, move.peer.gid, [])
        ended: Counter[str] = Counter()
        for _ in range(50):
            ended += await outcomes([client.ask(address, "suspend", request, PATIENT_S) for _ in range(10)])
        await client.close()
        assert ended["GuestError"] + ended["BusyError"] == 500, ended
        # Ten at a time are under way before the first of them counts for what it is.
        assert ended["GuestError"] <= 10 + 2 * allowances.SUSPENDS.most / allowances.UNFOUNDED
        # An agent that has only just started asks twice: its guests may not have come back yet.
        assert move.partner.asked.count("LIST_QPS") <= 2 * ended["GuestError"]
        # And the others' go on.
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_one_agents_requests_take_no_other_ones_place(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = cluster.prepare("src", 2)
        over, full, waiting = asyncio.Event(), asyncio.Event(), 0

        async def answer(caller: Identity, _request: Message) -> Message:
            nonlocal waiting
            if caller.name == "insider":
                waiting += 1
                if waiting == allowances.UNDER_WAY:
                    full.set()
                await over.wait()
            return {"name": "src", "version": 1}

        server = GrpcServer(certificates.load(host.config.tls), {"hello": answer})
        await server.start([host.address], cluster.port)
        files, address = insider(cluster), f"{host.address}:{cluster.port}"
        # Of one connection no more come than may be under way at a time.
        clients = [GrpcTransport(certificates.load(tls)) for tls in (files, files, host.config.tls)]
        try:
            work = [
                asyncio.ensure_future(clients[0].ask(address, "hello", HELLO, PATIENT_S))
                for _ in range(allowances.UNDER_WAY)
            ]
            async with asyncio.timeout(PATIENT_S):
                await full.wait()
            with pytest.raises(AllowanceError, match="256 requests under way"):
                await clients[1].ask(address, "hello", HELLO, PATIENT_S)
            await clients[2].ask(address, "hello", HELLO, PATIENT_S)
            over.set()
            assert set(await outcomes(list(work))) == {"dict"}
            await clients[1].ask(address, "hello", HELLO, PATIENT_S)
        finally:
            over.set()
            for client in clients:
                await client.close()
            await server.stop()

    play(scenario)


def test_a_large_request_is_not_looked_at_in_the_event_loop(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[threading.Thread] = []
    decode = agent_messages.decode

    def watched(data: bytes, schema: Any, what: str) -> Message:
        if what == "suspend from agent insider":
            looked.append(threading.current_thread())
        return decode(data, schema, what)

    monkeypatch.setattr(agent_messages, "decode", watched)

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("peer", 4)
        client = GrpcTransport(certificates.load(insider(cluster)))
        connection = {"gid": host.gid, "qpn": 1, "peer_gid": NINE, "peer_qpn": 1}
        for count in (5, 5000):
            request = suspend(cluster, host.gid, [connection] * count)
            with pytest.raises(GuestError, match="no process with the guest library has QP 0x1"):
                await client.ask(host.agent.contact.address, "suspend", request, PATIENT_S)
        await client.close()
        assert [one is threading.main_thread() for one in looked] == [True, False]

    play(scenario)


def test_messages_of_16_megabytes_do_not_come_without_end(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def watched(data: bytes, _schema: Any, what: str) -> Message:
        looked.append(len(data))
        raise MessageError(what)

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("peer", 4)
        client = GrpcTransport(certificates.load(insider(cluster)))
        monkeypatch.setattr(agent_messages, "decode", watched)
        monkeypatch.setattr(agent_messages, "check", lambda request, *_: request)
        monkeypatch.setattr(agent_messages, "encode", lambda _: b" " * (15 << 20))
        ended: Counter[str] = Counter()
        for _ in range(12):
            ended += await outcomes([client.ask(host.agent.contact.address, "suspend", HELLO, PATIENT_S)])
        await client.close()
        assert ended == {"MessageError": len(looked), "AllowanceError": 12 - len(looked)}
        assert 4 <= len(looked) <= 6

    play(scenario)


async def suspended(move: Move) -> tuple[Host, Message]:
    """The partner's host, asked by the source's agent to take part."""
    request = {
        "migration": "5" * 16,
        "source": move.src.agent.contact.as_message(),
        "key_digest": "0" * 64,
        "datagrams": [],
        "connections": [
            {"gid": move.peer.gid, "qpn": 0x21 + i, "peer_gid": move.src.gid, "peer_qpn": 0x11 + i}
            for i in range(2)
        ],
    }
    await move.src.agent.ask(move.peer.agent.contact, "suspend", request)
    return move.peer, {"migration": request["migration"]}


def test_no_source_has_a_partner_drain_for_longer_than_its_own_host_allows(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        peer, request = await suspended(move)
        await move.src.agent.ask(peer.agent.contact, "drain", {**request, "seconds": 1_000_000})
        assert 0 < (await move.partner.show())["drains_for"] <= 1000 * cluster.deadlines.drain
        await move.src.agent.ask(peer.agent.contact, "undo", request)
        await move.both_go_on_as_before()

    play(scenario)


# --- the figures -------------------------------------------------------------------------------------------


def ask(everybodys: Allowances, peer: str = "a", name: str = "outcome", size: int = 100) -> None:
    with everybodys.of(peer).request(name, size):
        pass


def test_requests_come_back_with_time() -> None:
    clock = Clock()
    everybodys = Allowances(clock)
    for _ in range(int(allowances.REQUESTS.most)):
        ask(everybodys)
    with pytest.raises(AllowanceError, match=r"agent a has asked more .*too many requests"):
        ask(everybodys)
    ask(everybodys, "b")
    clock.now += 1
    for _ in range(int(allowances.REQUESTS.each_second)):
        ask(everybodys)
    with pytest.raises(AllowanceError):
        ask(everybodys)


def test_a_request_larger_than_what_is_left_waits_and_is_not_refused_for_ever() -> None:
    clock = Clock()
    everybodys = Allowances(clock)
    for _ in range(4):
        ask(everybodys, size=16 << 20)
    with pytest.raises(AllowanceError, match=r"too many bytes .* try again in 16.0 s"):
        ask(everybodys, size=16 << 20)
    clock.now += 16
    ask(everybodys, size=16 << 20)


def test_a_hundred_containers_are_checkpointed_at_once() -> None:
    everybodys = Allowances(Clock())
    for _ in range(100):
        ask(everybodys, name="hello")
        ask(everybodys, name="suspend")


def test_what_nobody_has_counts_more_and_is_waited_for() -> None:
    clock = Clock()
    everybodys = Allowances(clock)

    def unfounded() -> None:
        with pytest.raises(GuestError), everybodys.of("a").request("suspend", 100):
            raise GuestError("nobody has it")

    for _ in range(16):
        unfounded()
    with pytest.raises(BusyError, match="what nobody here has"):
        ask(everybodys, name="suspend")
    ask(everybodys, name="outcome")
    clock.now += 1
    ask(everybodys, name="suspend")
    with pytest.raises(AgentError):
        ask(everybodys, name="suspend")
