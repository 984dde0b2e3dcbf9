"""Who uses RDMA without the guest library is named before anybody asks for a checkpoint."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster

from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.strangers import Strangers

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def _pair(pid: int, qpn: int = 0x11) -> dict[str, Any]:
    return {"ifname": "rxe0", "lqpn": qpn, "rqpn": 0x21, "pid": pid, "comm": "app"}


def test_a_process_without_the_guest_library_is_logged_once_and_shown_by_status(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 1)
        other = await asyncio.create_subprocess_exec("sleep", "60")
        src.containers.members = {os.getpid(): "c" * 64}
        # A process of no container, a kernel's own pair, and one whose maker has ended, are nobody's concern.
        src.resources.pairs = [
            _pair(os.getpid()), _pair(os.getpid(), 0x12), _pair(other.pid, 0x13), _pair(0, 0x14),
            {"ifname": "rxe0", "lqpn": 1, "comm": "ib_core"},
        ]  # fmt: skip
        agent = src.agent
        strangers = Strangers(agent.guests, agent.containers, agent.resources)
        watching = asyncio.create_task(strangers.watch(0.01, 0.01))
        while not caplog.records or "without the guest library" not in caplog.text:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        watching.cancel()
        with src.connect() as connected:
            shown = await asyncio.to_thread(connected.objections)
        other.kill()
        await other.wait()
        [said] = [one for one in caplog.messages if "without the guest library" in one]
        assert said.startswith(f"process {os.getpid()} (")
        assert "container cccccccccccc has queue pairs without the guest library" in said
        [found] = shown["strangers"]
        assert (found["pid"], found["container"]) == (os.getpid(), "c" * 64)
        assert "statically" in found["reason"]

    play(scenario)


def test_a_process_with_a_guest_is_no_stranger(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 1)
        guest = await cluster.guest(src, "c1", "a" * 16, [])
        src.resources.pairs = [_pair(guest.pid)]
        agent = src.agent
        assert await Strangers(agent.guests, agent.containers, agent.resources).look() == []

    play(scenario)


def test_the_libibverbs_that_a_process_has_mapped_is_named_whatever_it_is_called(tmp_path: Path) -> None:
    proc = tmp_path / "proc" / "7"
    proc.mkdir(parents=True)
    place = "00000000-00001000 r-xp 00000000 00:1f 12"
    (proc / "maps").write_text(
        f"{place}   /opt/wheel.libs/libibverbs-1a2b.so.1\n{place}   /opt/wheel.libs/libibverbs-1a2b.so.1\n"
        f"{place}   /usr/lib/libc.so.6\n{place}   [heap]\n{place}\n{place}   /opt/a b/libibverbs\x1b[2J.so\n"
    )
    containers = Containers(tmp_path, tmp_path / "proc")
    assert containers.verbs_libraries(7) == (
        "/opt/wheel.libs/libibverbs-1a2b.so.1",
        r"/opt/a b/libibverbs\x1b[2J.so",
    )
    assert containers.verbs_libraries(8) == ()
