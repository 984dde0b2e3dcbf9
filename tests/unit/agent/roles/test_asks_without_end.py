"""A process that asks its agent without end where queue pairs are: that has a bound, and others pay nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from cluster import Cluster, Host
from guest_process import PATIENT_S

from migrrdma_runtime.agent.local import asking, budget
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.roles.whereabouts import Whereabouts
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.allowed_rate import Rate
from migrrdma_runtime.wire.agent_messages import Contact, Message
from migrrdma_runtime.wire.guest_messages import WIRE

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_LINK_LOCAL = bytes([0xFE, 0x80]) + bytes(13) + b"\1"
"""A GID at which no agent could be asked."""


def _question(host: Host, ident: int, gid: bytes = _LINK_LOCAL, *, moved: bool = False) -> bytes:
    own = gids.packed(host.gid)
    body = {"context": 1, "qpn": 5, "vqpn": 6, "pqpn": 6, "dgid": gid, "vgid": own}
    return WIRE.pack("WHERE", body | {"gid": bytes(15) + b"\1" if moved else own}, ident=ident)


async def _asker(cluster: Cluster) -> tuple[Host, socket.socket]:
    """A host, and an end of a connection of a process on it that says what the test has it say."""
    cluster.late_comers = True
    host = await cluster.host("peer", 4)
    host.containers.everybody_else = "evil"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    path = host.config.guest_socket
    folder = os.open(path.parent, os.O_PATH)  # the path may be longer than a socket's address
    try:
        await loop.sock_connect(connection, f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    hello = {"token": 1, "pid": 7, "state": 1, "build_id": bytes(20)}
    await loop.sock_sendall(connection, WIRE.pack("HELLO", hello))
    assert WIRE.unpack(await loop.sock_recv(connection, 1 << 16)).kind == "WELCOME"
    return host, connection


async def _ask_on(host: Host, connection: socket.socket, *, moved: bool = False) -> None:
    for number in range(1, 1 << 30):
        gid = bytes(10) + b"\xff\xff\x7f\1" + (number % 65536).to_bytes(2, "big") if moved else _LINK_LOCAL
        await asyncio.get_running_loop().sock_sendall(connection, _question(host, number, gid, moved=moved))


@contextmanager
def _going_on(work: Awaitable[None]) -> Iterator[asyncio.Future[None]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()


async def _hear(connection: socket.socket, count: int) -> None:
    for _ in range(count):
        await asyncio.get_running_loop().sock_recv(connection, 1 << 16)


def test_one_that_does_not_read_its_answers_is_not_given_more_of_them(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MOST_AWAITED", 500)

    async def scenario(cluster: Cluster) -> None:
        host, connection = await _asker(cluster)
        with connection, _going_on(_ask_on(host, connection)) as asks:
            most = 0
            async with asyncio.timeout(PATIENT_S):
                while not asks.done() and most < 2000:
                    most = max(most, len(asyncio.all_tasks()))
                    await asyncio.sleep(0)
            assert most < 600, f"{most} tasks keep answers that nobody reads"
            assert isinstance(asks.exception(), OSError)  # it was hung up on

    play(scenario)


def test_what_looking_for_it_takes_of_the_processor_is_its_containers(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not only what reading the question takes: after its share it waits."""
    monkeypatch.setattr(budget, "PROCESSOR", Rate(0.2, 1e-9))

    async def scenario(cluster: Cluster) -> None:
        host, connection = await _asker(cluster)
        with connection, _going_on(_ask_on(host, connection)), _going_on(_hear(connection, 1 << 30)):
            began = last = time.thread_time()
            async with asyncio.timeout(PATIENT_S):
                while not host.agent.guests.all():
                    await asyncio.sleep(0)
                [guest] = host.agent.guests.all()
                while not guest._budget.rest():
                    await asyncio.sleep(0.01)  # what has come is read by and by
                    last = time.thread_time()
            # Half of it is this test's, which asks.
            assert last - began < 1.5, f"{last - began:.1f} s for a share of 0.2 s"

    play(scenario)


def test_all_that_are_asked_because_of_one_question_count(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home names whom it likes: a thousand, if it is to be a flood."""
    monkeypatch.setattr(asking, "RATE", Rate(10, 1e-9))

    async def where(_whereabouts: Whereabouts, _caller: Identity, request: Message) -> Message:
        others = [Contact(f"n{number}", request["asker"]["address"]) for number in range(20)]
        nothing = {"found": [], "here": False, "moving": "", "quiet": False}
        return {**nothing, "others": [one.as_message() for one in others]}

    monkeypatch.setattr(Whereabouts, "where", where)

    async def scenario(cluster: Cluster) -> None:
        host, connection = await _asker(cluster)
        home = await cluster.host("home", 5)
        with connection:
            connection.send(_question(host, 1, gids.packed(home.gid)))
            await _hear(connection, 1)
        [guest] = host.agent.guests.all()
        assert not guest.asking.may_ask()

    play(scenario)


def test_the_log_has_room_for_others(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """Of a question that is refused there is a line, which anybody could have written without end."""
    caplog.set_level(logging.INFO)

    async def scenario(cluster: Cluster) -> None:
        host, connection = await _asker(cluster)
        with connection, _going_on(_ask_on(host, connection, moved=True)):
            await _hear(connection, 400)
        lines = [one for one in caplog.messages if "is not connected to" in one]
        assert 0 < len(lines) <= asking.LINES.most + PATIENT_S * asking.LINES.each_second

    play(scenario)
