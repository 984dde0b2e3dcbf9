"""A second restore of a checkpoint on the host of the first: neither is taken for the other, and nothing is lost by it.

The first one's runtime may still be at work, since its agent was restarted meanwhile; or its claim was given back, and
others are still being told so.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from cluster import Cluster, Host
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.peers.transport import Routed, Transport
from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.wire.agent_messages import Message

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_OTHER_PROCESS = """
import json, socket, sys

path, request = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(path)
    agent.sendall(request.encode() + b"\\n")
    for line in agent.makefile():
        if "alive" not in json.loads(line):
            print(line, flush=True)
            break
"""


async def _report_of_another_runtime(host: Host, migration: str) -> Any:
    """What a runtime that is another process is answered when it says that its restore has succeeded."""
    request = {"op": "report", "migration": migration, "succeeded": True, "steps": []}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _OTHER_PROCESS,
        str(host.config.runtime_socket),
        json.dumps(request),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENT_S):
        said, _ = await process.communicate()
    return json.loads(said)


def test_what_was_restored_is_not_given_back_for_a_second_restore_of_it(play: Play) -> None:
    """Its runtime, which has not heard the answer, would kill the only copy."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()
        migration = move.document["migration"]
        async with asyncio.timeout(PATIENT_S):
            while move.dst.state() != {"destination": "done"}:
                await asyncio.sleep(0.02)  # an agent's own state: no message tells of it
        with move.dst.connect() as again, pytest.raises(MigrRDMAError):
            await asyncio.to_thread(again.restore, "c3", move.document)
        # The first one's runtime asks again: the agent was restarted before it had answered.
        with move.dst.connect() as first:
            result = await asyncio.to_thread(first.report, migration, succeeded=True)
        assert result["migration"] == migration
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_report_is_of_the_restore_that_its_runtime_has_begun(play: Play) -> None:
    """The first one's claim was given back by a restarted agent; what it restored must not go on beside the second."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        migration = move.document["migration"]
        with move.dst.connect() as second:
            await asyncio.to_thread(second.restore, move.lands_in, move.document)
            answer = await _report_of_another_runtime(move.dst, migration)
            assert answer.get("error", {}).get("released"), answer

    play(scenario)


def test_a_report_that_comes_late_is_of_the_restore_that_its_runtime_has_begun(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.restore()
        answer = await _report_of_another_runtime(move.dst, move.document["migration"])
        assert answer.get("error", {}).get("released"), answer
        await move.both_go_on_after_the_move()

    play(scenario)


class _SecondMeanwhile:
    """Has the first restore tell of its end only when the second one comes to ask something."""

    def __init__(self, real: Transport, until: str) -> None:
        self._real = real
        self._until = until
        self.first: asyncio.Future[Any] | None = None
        self.told = asyncio.Event()
        self._go_on = asyncio.Event()

    async def ask(
        self, address: str, name: str, request: Message, timeout: float, agent: str = ""
    ) -> Message:
        """Ask by the real one, in that order."""
        if name == "retract":
            self.told.set()
            await self._go_on.wait()
        elif name == self._until and self.told.is_set() and self.first is not None:
            self._go_on.set()
            await asyncio.wait((self.first,))
        return await self._real.ask(address, name, request, timeout, agent)

    async def close(self) -> None:
        """Close the real one."""
        await self._real.close()


@pytest.mark.parametrize("until", ["claim", "commit"])
def test_a_restore_that_ends_leaves_what_the_next_one_holds(play: Play, until: str) -> None:
    """The first has given its claim back and tells so a partner that does not answer; the second begins meanwhile."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        routed = move.dst.agent.transport
        assert isinstance(routed, Routed)
        order = routed.others = _SecondMeanwhile(routed.others, until)
        order.first = asyncio.ensure_future(replace(move).restore(succeeded=False))
        async with asyncio.timeout(PATIENT_S):
            await order.told.wait()
        result = await move.restore(held=True)
        with pytest.raises(MigrRDMAError) as caught:
            await order.first
        assert caught.value.released  # or what it has restored would run beside the second
        assert move.heard[-1] == {"done": {}}
        assert result["migration"] == move.document["migration"]
        await move.both_go_on_after_the_move()

    play(scenario)


def test_what_the_first_holds_is_ended_while_the_second_goes_on(play: Play) -> None:
    """CRIU may come to its end long after the agent was restarted and has given the claim back."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with move.dst.connect() as second:
            migration = await asyncio.to_thread(second.restore, move.lands_in, move.document)
            [line] = [one for one in await move.hold(move.dst, runtime=1) if "alive" not in one]
            assert line["error"]["released"]
            assert "destination: restored" not in move.dst.steps
            with pytest.raises(MigrRDMAError):
                await asyncio.to_thread(second.report, migration, succeeded=False)
        await move.restore(held=True)
        await move.both_go_on_after_the_move()
        # Also when it is committed: what goes on is the second's.
        [line] = await move.hold(move.dst, runtime=1)
        assert line["error"]["released"]

    play(scenario)
