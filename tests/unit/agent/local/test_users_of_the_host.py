"""Processes outside of containers are of different users: none takes from another one's limits."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import FakeContainers
from guest_process import PATIENT_S

from migrrdma_runtime.agent.local import accounts, sockets
from migrrdma_runtime.agent.local import budget as budget_module
from migrrdma_runtime.agent.local import guests as guests_module
from migrrdma_runtime.agent.local.local_sockets import LocalSockets
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.allowed_rate import Rate
from migrrdma_runtime.wire.guest_messages import WIRE

ONE, ANOTHER = 1000, 1001


class Users:
    """Processes of several users that connect to one agent."""

    def __init__(self, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._where = str(run_dir / paths.GUEST_SOCKET_DIR / paths.GUEST_SOCKET)
        self._local = LocalSockets(FakeContainers(), run_dir)  # all are outside of containers
        self._token = 0
        self._kept: list[socket.socket] = []
        self._user = 0
        monkeypatch.setattr(guests_module, "peer_user", lambda _connection: self._user)

    async def __aenter__(self) -> Users:
        await self._local.listen()
        self._local.serve({})
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self._kept:
            one.close()
        await self._local.close()

    async def answer_to(self, user: int) -> str:
        """What is answered to one more process of this user, which stays: the name of a message, or nothing."""
        loop = asyncio.get_running_loop()
        self._user, self._token = user, self._token + 1
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        self._kept.append(connection)
        body = {"token": self._token, "pid": 1, "state": 1, "contexts": 1, "build_id": b"\1" * 20}
        try:
            async with asyncio.timeout(PATIENT_S):
                await loop.sock_connect(connection, self._where)
                await loop.sock_sendall(connection, WIRE.pack("HELLO", body))
                packet = await loop.sock_recv(connection, 1000)
        except (BrokenPipeError, ConnectionResetError):
            return ""
        return WIRE.unpack(packet).kind if packet else ""

    def leave(self) -> None:
        """All that are there close their connections."""
        while self._kept:
            self._kept.pop().close()


def _connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_CONNECTIONS", 5)


def _new_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "BURST", 5)
    monkeypatch.setattr(accounts, "PER_SECOND", 1e-9)


@pytest.mark.parametrize("limit", [_connections, _new_connections])
def test_a_user_that_has_all_it_can_have_keeps_no_other_from_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: Callable[[pytest.MonkeyPatch], None]
) -> None:
    limit(monkeypatch)

    async def run() -> None:
        async with Users(tmp_path, monkeypatch) as users:
            assert [await users.answer_to(ONE) for _ in range(6)] == ["WELCOME"] * 5 + [""]
            assert await users.answer_to(ANOTHER) == "WELCOME"
            assert not await users.answer_to(ONE)

    asyncio.run(run())


def test_a_user_that_connects_and_leaves_again_and_again_begins_no_new_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _new_connections(monkeypatch)
    monkeypatch.setattr(accounts, "_KEPT_S", 1e6)

    async def run() -> None:
        async with Users(tmp_path, monkeypatch) as users:
            for _ in range(5):
                assert await users.answer_to(ONE) == "WELCOME"
                users.leave()
            assert not await users.answer_to(ONE)

    asyncio.run(run())


def test_a_user_that_has_taken_its_share_of_the_processor_keeps_no_other_from_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with Users(tmp_path, monkeypatch) as users:
            # Gone with the first look at a process.
            monkeypatch.setattr(budget_module, "PROCESSOR", Rate(1e-9, 1e-20))
            assert await users.answer_to(ONE) == "WELCOME"
            assert not await users.answer_to(ONE)
            assert await users.answer_to(ANOTHER) == "WELCOME"

    asyncio.run(run())


def test_who_connects_and_leaves_without_end_leaves_the_log_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget_module, "LINES", Rate(6, 1e-9))
    caplog.set_level(logging.INFO)

    async def run() -> None:
        async with Users(tmp_path, monkeypatch) as users:
            for _ in range(20):
                assert await users.answer_to(ONE) == "WELCOME"
                users.leave()
            assert len(caplog.messages) <= 6
            assert await users.answer_to(ANOTHER) == "WELCOME"
            assert "connected, running" in caplog.messages[-1]

    asyncio.run(run())


def test_one_that_is_many_users_leaves_descriptors_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To containers, to root, to other agents: newuidmap(1) makes him 65,536 users, each with its own connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    monkeypatch.setattr(accounts, "MAX_CONNECTIONS", 5)

    async def run() -> None:
        async with Users(tmp_path, monkeypatch) as users:
            answers = [await users.answer_to(100_000 + number // 5) for number in range(110)]
            assert answers == ["WELCOME"] * 100 + [""] * 10
            assert await users.answer_to(0) == "WELCOME"
            users.leave()
            async with asyncio.timeout(PATIENT_S):
                while await users.answer_to(200_000) != "WELCOME":
                    await asyncio.sleep(0)

    try:
        asyncio.run(run())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_kernel_says_which_user_has_connected() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert sockets.peer_user(ours) == os.geteuid()
