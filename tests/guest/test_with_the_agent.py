"""The real guest library under the real agent: what can be shown without CRIU and a second host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import PATIENT_S, Cluster, Host
from guest_agent import Program
from guest_build import Built

from migrrdma_runtime.agent.guests import GuestState


async def connected(host: Host) -> GuestState:
    """The guest's state, once it is connected."""
    async with asyncio.timeout(PATIENT_S):
        while not host.agent.here.guests.of("c1"):
            await asyncio.sleep(0.02)  # another process's connection
    return host.agent.here.guests.of("c1")[0].state


def play(tmp_path: Path, built: Built, scenario: Callable[[Host, Program], Any]) -> None:
    """Run a scenario with one agent, and one program that talks to itself and checks every byte."""

    async def run() -> None:
        cluster = Cluster(tmp_path / "cluster")
        try:
            host = await cluster.host("src", 2)
            environment = {**built.environment, "MIGRRDMA_SOCKET": str(host.settings.guest_socket)}

            def start() -> Program:
                return Program([built.traffic], environment, tmp_path / "log")

            # The kernel says which process calls, but only after it was started: whoever calls is in c1.
            host.containers.everybody_else = "c1"
            with await asyncio.to_thread(start) as program:
                assert await connected(host) is GuestState.RUNNING
                await scenario(host, program)
                await asyncio.to_thread(program.wait_for_progress)
                assert await asyncio.to_thread(program.verdict) == "exact"
        finally:
            await cluster.close()

    (tmp_path / "cluster").mkdir()
    asyncio.run(run())


def test_a_dump_that_fails_leaves_the_traffic_exact(tmp_path: Path, built: Built) -> None:
    async def scenario(host: Host, program: Program) -> None:
        for _ in range(5):
            with host.call() as agent:
                ready = await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
                assert ready is not None
                assert ready["manifest"]["internal"]
                assert not ready["manifest"]["partners"]
                assert not host.agent.here.guests.of("c1")  # it has let go of us, to be dumped
                await asyncio.to_thread(agent.report, ready["migration"], succeeded=False)
            assert await connected(host) is GuestState.RUNNING
            await asyncio.to_thread(program.wait_for_progress)

    play(tmp_path, built, scenario)


@pytest.mark.parametrize("when", ["describe", "dumping"])
def test_an_agent_that_dies_leaves_the_traffic_exact(tmp_path: Path, built: Built, when: str) -> None:
    async def scenario(host: Host, program: Program) -> None:
        from cluster import keep_alive

        from migrrdma_runtime.errors import UnreachableError

        host.kill_at = f"source: {when}"
        async with keep_alive(host):
            with host.call() as agent, pytest.raises(UnreachableError):
                await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
        assert await connected(host)
        await asyncio.to_thread(program.wait_for_progress)

    play(tmp_path, built, scenario)
