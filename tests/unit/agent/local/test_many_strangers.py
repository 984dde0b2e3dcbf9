"""Many processes that use RDMA without the guest library: what they cost the agent, and whom they hide."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster

from migrrdma_runtime.agent.local.containers import Process, ProcessId
from migrrdma_runtime.agent.local.strangers import Stranger, Strangers

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def _pair(pid: int, qpn: int = 0x11) -> dict[str, Any]:
    return {"ifname": "rxe0", "lqpn": qpn, "rqpn": 0x21, "pid": pid, "comm": "app"}


def test_what_each_new_one_costs_does_not_grow_with_those_that_are_known(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the loop: a container may have thirty thousand processes, each with a queue pair."""

    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 1)
        many, looked = 400, Counter[str]()
        containers = src.containers

        def is_alive(_who: ProcessId) -> bool:
            looked["is_alive"] += 1
            return True

        monkeypatch.setattr(containers, "is_alive", is_alive)
        monkeypatch.setattr(containers, "identify", lambda pid: ProcessId(pid, "b/1"))
        strangers = Strangers(src.agent.guests, containers, src.agent.resources)
        found = [Stranger("c" * 64, Process(pid, "app"), ()) for pid in range(1, many + 1)]

        async def look() -> list[Stranger]:
            return found

        monkeypatch.setattr(strangers, "look", look)
        watching = asyncio.create_task(strangers.watch(0, 0))
        while len(strangers._said) < many:
            await asyncio.sleep(0)
        watching.cancel()
        assert looked["is_alive"] <= 10 * many, (
            f"{looked['is_alive']} reads of /proc in the loop for {many} processes; thirty thousand make "
            f"{30_000**2 // 2}"
        )

    play(scenario)


def test_those_of_one_container_do_not_hide_anothers(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 1)
        sleepers = [await asyncio.create_subprocess_exec("sleep", "600") for _ in range(260)]
        try:
            pids = sorted(one.pid for one in sleepers)
            src.containers.members = dict.fromkeys(pids, "c" * 64) | {pids[-1]: "d" * 64}
            src.resources.pairs = [_pair(pid, 0x11 + n) for n, pid in enumerate(pids)]
            with src.connect() as connected:
                shown = await asyncio.to_thread(connected.objections)
            assert "d" * 64 in {one["container"] for one in shown["strangers"]}
        finally:
            for one in sleepers:
                one.kill()
                await one.wait()

    play(scenario)


def test_one_whose_mappings_cannot_be_read_hides_nobody(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that holds the lock of its mappings: it is named without them, and another container's with its own."""

    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 1)
        stuck, other = os.getpid(), os.getppid()
        src.containers.members = {stuck: "c" * 64, other: "d" * 64}
        src.resources.pairs = [_pair(stuck, 0x11), _pair(other, 0x12)]
        goes_on = threading.Event()

        def libraries(pid: int) -> tuple[str, ...]:
            if pid == stuck:
                goes_on.wait()
            return ("/opt/libibverbs.so.1",)

        monkeypatch.setattr(src.containers, "verbs_libraries", libraries)
        try:
            with src.connect() as agent:
                said = await asyncio.to_thread(agent.objections)
        finally:
            goes_on.set()
        reasons = {one["pid"]: one["reason"] for one in said["strangers"]}
        assert "its mappings cannot be read" in reasons[stuck]
        assert "through /opt/libibverbs.so.1" in reasons[other]

    play(scenario)
