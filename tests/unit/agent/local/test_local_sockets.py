"""An agent's sockets answer before the agent is all there: guests are greeted, requests wait."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, FakeContainers
from guest_process import PATIENT_S

from migrrdma_runtime.agent.daemon import Daemon
from migrrdma_runtime.agent.local import runtime_api
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.local_sockets import LocalSockets
from migrrdma_runtime.base.errors import UnreachableError
from migrrdma_runtime.wire import runtime_client
from migrrdma_runtime.wire.guest_messages import WIRE

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def greeted(path: Path) -> socket.socket:
    """A guest that has been welcomed."""
    loop = asyncio.get_running_loop()
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    guest.connect(str(path))
    body = {"token": 0xABC, "pid": 1, "state": 1, "contexts": 1, "build_id": b"\1" * 20}
    await loop.sock_sendall(guest, WIRE.pack("HELLO", body))
    async with asyncio.timeout(PATIENT_S):
        assert WIRE.unpack(await loop.sock_recv(guest, 1000)).kind == "WELCOME"
    return guest


def ask_status(path: Path) -> dict[str, Any]:
    with runtime_client.Agent(str(path), PATIENT_S) as agent:
        return agent.status()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.01)  # the other end is a thread


def test_who_comes_early_is_greeted_or_waits(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cluster: Cluster) -> None:
        monkeypatch.setattr(runtime_api, "ALIVE_S", 0.02)
        host = cluster.prepare("src", 2)
        local = LocalSockets(FakeContainers(), host.config.run_dir)
        await local.listen()
        guest = await greeted(host.config.guest_socket)
        told: list[Any] = []
        monkeypatch.setattr(runtime_api._Line, "send", lambda _line, message: told.append(message))
        early = asyncio.ensure_future(asyncio.to_thread(ask_status, host.config.runtime_socket))
        # Its patience would end if it were not told that the agent is alive.
        await until(lambda: told == [{"alive": True}] * 3)
        assert not early.done()
        monkeypatch.undo()
        looked_at: list[str] = []
        daemon = Daemon(host.config, local=local)
        connected = daemon._connected

        def look(one: Guest) -> None:
            looked_at.append(one.name)
            connected(one)

        monkeypatch.setattr(daemon, "_connected", look)
        await daemon.start()
        [shown] = (await early)["guests"]
        assert looked_at == [shown["process"]] == [f"{0xABC:016x}"]
        guest.close()
        await daemon.stop()

    play(scenario)


def test_an_agent_that_is_stopped_before_it_is_there_lets_everybody_go(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = cluster.prepare("src", 2)
        local = LocalSockets(FakeContainers(), host.config.run_dir)
        await local.listen()
        guest = await greeted(host.config.guest_socket)
        early = asyncio.ensure_future(asyncio.to_thread(ask_status, host.config.runtime_socket))
        await until(lambda: local.api._lines)
        async with asyncio.timeout(PATIENT_S):
            await local.close()
            with pytest.raises(UnreachableError, match="ended in the middle"):
                await early
            assert await asyncio.get_running_loop().sock_recv(guest, 1) == b""
        guest.close()

    play(scenario)
