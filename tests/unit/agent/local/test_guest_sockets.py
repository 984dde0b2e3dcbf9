"""Each container has a socket of its own: who comes in by another one's, or takes another one's name, gets nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cluster import Cluster, FakeContainers
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.local import accounts, guest_sockets, sockets
from migrrdma_runtime.agent.local import budget as budget_module
from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.local_sockets import LocalSockets
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.allowed_rate import Rate
from migrrdma_runtime.wire import runtime_client
from migrrdma_runtime.wire.guest_messages import WIRE

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

HERE = "c" * 64
"""As long as an engine's ids are: the path is then too long for a socket's address."""


def make(run_dir: Path, container: str) -> Path:
    """The container's directory, as the runtime makes it."""
    folder = run_dir / paths.CONTAINERS_DIR / container / paths.GUEST_SOCKET_DIR
    folder.mkdir(parents=True)
    return folder


def dial(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    handle = os.open(folder, os.O_PATH)
    try:
        connection.connect(f"/proc/self/fd/{handle}/{paths.GUEST_SOCKET}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(handle)
    return connection


async def answer_at(folder: Path, token: int = 0xABC) -> str:
    """What is answered to a greeting: the name of a message, or nothing."""
    loop = asyncio.get_running_loop()
    body = {"token": token, "pid": 1, "state": 1, "contexts": 1, "build_id": b"\1" * 20}
    with dial(folder) as connection:
        await loop.sock_sendall(connection, WIRE.pack("HELLO", body))
        async with asyncio.timeout(PATIENT_S):
            try:
                packet = await loop.sock_recv(connection, 1000)
            except ConnectionResetError:
                return ""
    return WIRE.unpack(packet).kind if packet else ""


@asynccontextmanager
async def listening(run_dir: Path, container: str) -> AsyncIterator[LocalSockets]:
    """An agent's sockets, of a host on which this process is in a certain container."""
    containers = FakeContainers()
    containers.members[os.getpid()] = container
    run_dir.mkdir(exist_ok=True)
    local = LocalSockets(containers, run_dir)
    await local.listen()
    local.serve({})
    try:
        yield local
    finally:
        await local.close()


def watch(containers: Containers, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that are looked up from now on."""
    looked_up: list[int] = []
    look_up = containers.container_of

    def container_of(pid: int) -> str:
        looked_up.append(pid)
        return look_up(pid)

    monkeypatch.setattr(containers, "container_of", container_of)
    return looked_up


def test_a_guest_is_of_the_container_whose_socket_it_comes_in_by(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        mine, others = make(tmp_path / "run", HERE), make(tmp_path / "run", "other")
        async with listening(tmp_path / "run", HERE) as local:
            assert await answer_at(mine) == "WELCOME"
            assert not await answer_at(others)
            # The host's own is for processes outside containers, and for containers that have none.
            host = tmp_path / "run" / paths.GUEST_SOCKET_DIR
            assert not await answer_at(host)
            for outside in ("", "made by an earlier version"):
                assert isinstance(local.containers, FakeContainers)
                local.containers.members[os.getpid()] = outside
                assert await answer_at(host) == "WELCOME"
                assert not await answer_at(mine)

    asyncio.run(run())
    for refused in (
        f"is of container {HERE:.12} by its cgroup, and has come in by the socket of container other",
        f"is of container {HERE:.12} by its cgroup, and has come in by the socket of the host",
        f"is of the host by its cgroup, and has come in by the socket of container {HERE:.12}",
    ):
        assert refused in caplog.text


def test_a_container_that_is_made_later_is_announced(tmp_path: Path) -> None:
    async def run() -> None:
        async with listening(tmp_path, HERE):
            for _ in ("made", "deleted and made again"):
                folder = make(tmp_path, HERE)
                await asyncio.to_thread(runtime_client.announce, str(tmp_path), HERE)
                async with asyncio.timeout(PATIENT_S):
                    while not (folder / paths.GUEST_SOCKET).exists():
                        await asyncio.sleep(0.01)  # nobody answers an announcement
                assert await answer_at(folder) == "WELCOME"
                shutil.rmtree(folder.parent)

    asyncio.run(run())


def test_an_announcement_needs_no_agent_and_waits_for_none_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime_client.announce(str(tmp_path), HERE)
    monkeypatch.setattr(runtime_client, "ANNOUNCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / paths.RUNTIME_SOCKET))
        listener.listen(0)
        for _ in range(3):  # its backlog is full
            runtime_client.announce(str(tmp_path), HERE)


def test_the_socket_of_a_container_that_is_gone_is_closed(tmp_path: Path) -> None:
    async def run() -> None:
        async with listening(tmp_path, HERE) as local:
            before = len(list(Path("/proc/self/fd").iterdir()))
            for number in range(5):
                folder = make(tmp_path, f"c{number}")
                local.guests.listen_in(f"c{number}")
                shutil.rmtree(folder.parent)
            local.guests.listen_in("another")
            assert len(list(Path("/proc/self/fd").iterdir())) == before

    asyncio.run(run())


@pytest.mark.parametrize("container", ["..", "a/../../b", "", "."])
def test_an_id_that_is_no_name_of_a_folder_is_nobodys(tmp_path: Path, container: str) -> None:
    async def run() -> None:
        async with listening(tmp_path / "run", HERE) as local:
            (tmp_path / "run" / paths.CONTAINERS_DIR / "a").mkdir(parents=True)
            (tmp_path / "b" / paths.GUEST_SOCKET_DIR).mkdir(parents=True)
            local.guests.listen_in(container)
            assert not list(tmp_path.glob(f"b/*/{paths.GUEST_SOCKET}"))

    asyncio.run(run())


def test_a_process_that_ends_while_it_is_looked_at_is_not_taken_for_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is free as soon as it has ended, and what is read of that number may be another process's."""
    for kernel in ("with SO_PEERPIDFD", "without"):
        path = tmp_path / kernel
        with sockets.listen_at(path, socket.SOCK_SEQPACKET, 0o600) as listener:
            listener.setblocking(True)
            child = os.fork()
            if not child:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                    connection.connect(str(path))
                    signal.pause()
            connection, _ = listener.accept()
            with connection, sockets.peer_process(connection) as (pid, is_still_there):
                assert pid == child
                assert is_still_there()
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                assert not is_still_there()
            monkeypatch.setattr(sockets, "_SO_PEERPIDFD", 0x7FFF)


def test_a_call_is_taken_back_wherever_it_was_made(tmp_path: Path) -> None:
    """After a reboot the container has no directory yet, and one when its process is found to have ended."""

    async def run() -> None:
        async with listening(tmp_path, HERE) as local:
            local.guests.ask_to_connect(HERE, "a" * 16)
            assert list(tmp_path.rglob("resume-*"))
            make(tmp_path, HERE)
            local.guests.stop_asking(HERE, "a" * 16)
            assert not list(tmp_path.rglob("resume-*"))

    asyncio.run(run())


def test_nobody_takes_over_what_another_container_is_told(play: Play) -> None:
    """With its name, which other containers can learn, a stranger had the mover's UNDO, and the mover none."""

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=5)
        loop = asyncio.get_running_loop()
        move = await Move.begin(cluster)
        move.src.containers.members[os.getpid()] = "strangers"
        with move.src.connect() as agent:
            ready = await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
            assert ready is not None
            os.kill(move.mover.pid, signal.SIGSTOP)
            await asyncio.to_thread(agent.report, ready["migration"], succeeded=False)
        with dial(move.src.config.guest_socket.parent) as stranger:
            token = int(move.mover.name, 16)
            body = {"token": token, "pid": 1, "state": 4, "contexts": 1, "build_id": b"\1" * 20}
            await loop.sock_sendall(stranger, WIRE.pack("HELLO", body))
            async with asyncio.timeout(PATIENT_S):
                assert WIRE.unpack(await loop.sock_recv(stranger, 1000)).kind == "WELCOME"
            os.kill(move.mover.pid, signal.SIGCONT)
            await move.both_go_on_as_before()
            with pytest.raises(BlockingIOError):
                stranger.recv(1000)

    play(scenario)


def test_one_container_cannot_keep_the_agent_busy_with_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It connects and closes as fast as it can; others are served, and little is looked up for it."""
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(accounts, "BURST", 20)
    monkeypatch.setattr(accounts, "PER_SECOND", 0.1)

    async def run() -> None:
        flooded, other = make(tmp_path, HERE), make(tmp_path, "other")
        async with listening(tmp_path, HERE) as local:
            looked_up = watch(local.containers, monkeypatch)
            refused = 0
            for _ in range(300):
                try:
                    dial(flooded).close()
                except BlockingIOError:
                    refused += 1
                await asyncio.sleep(0)
            assert refused, "as many connections as the backlog has room for"
            assert len(looked_up) <= 20
            assert isinstance(local.containers, FakeContainers)
            local.containers.members[os.getpid()] = "other"
            assert await answer_at(other) == "WELCOME"

    asyncio.run(run())


def test_what_connecting_costs_the_processor_has_a_bound_for_each_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_module, "PROCESSOR", Rate(0.02, 0.001))

    async def run() -> None:
        flooded, other = make(tmp_path, HERE), make(tmp_path, "other")
        async with listening(tmp_path, HERE) as local:
            looked_up = watch(local.containers, monkeypatch)
            look = local.containers.container_of

            def slowly(pid: int) -> str:
                end = time.thread_time() + 0.01
                while time.thread_time() < end:
                    pass
                return look(pid)

            monkeypatch.setattr(local.containers, "container_of", slowly)
            for _ in range(50):
                dial(flooded).close()
                await asyncio.sleep(0)
            assert 0 < len(looked_up) < 10
            assert isinstance(local.containers, FakeContainers)
            local.containers.members[os.getpid()] = "other"
            assert await answer_at(other) == "WELCOME"

    asyncio.run(run())


def test_too_many_connections_are_refused_before_anything_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MAX_CONNECTIONS", 5)

    async def run() -> None:
        folder = make(tmp_path, HERE)
        async with listening(tmp_path, HERE) as local:
            looked_up = watch(local.containers, monkeypatch)
            silent = [dial(folder) for _ in range(5)]
            assert not await answer_at(folder)
            assert len(looked_up) == 5
            for one in silent:
                one.close()
            async with asyncio.timeout(PATIENT_S):
                while not await answer_at(folder):
                    await asyncio.sleep(0.01)  # the closed ones are noticed in their own time

    asyncio.run(run())


def test_a_directory_that_cannot_be_listened_in_is_told_of_and_harms_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        (make(tmp_path, "bad") / paths.GUEST_SOCKET).mkdir()
        async with listening(tmp_path, HERE):
            assert await answer_at(tmp_path / paths.GUEST_SOCKET_DIR) == "WELCOME"
        assert "the guests of container bad cannot connect" in caplog.text

    asyncio.run(run())


def test_an_agent_that_starts_looks_at_each_containers_directory_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each container once more at every other one, a thousand of them would stop its loop for three seconds."""
    looked_at: list[Path] = []
    identity = guest_sockets._identity

    def note(directory: Path) -> guest_sockets.Directory | None:
        looked_at.append(directory)
        return identity(directory)

    monkeypatch.setattr(guest_sockets, "_identity", note)
    for number in range(50):
        make(tmp_path, f"c{number}")
    opened: list[str] = []
    ours = guest_sockets.GuestSockets(
        tmp_path / paths.CONTAINERS_DIR,
        tmp_path / paths.GUEST_SOCKET_DIR,
        on_open=lambda _listener, container: opened.append(container),
        on_close=lambda _listener: None,
    )
    ours.listen()
    ours.close()
    assert len(opened) == 51
    assert len(looked_at) <= 3 * 51
