"""What CRIU's plugin holds goes on when its restore is committed and not before, and is ended when it never will be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster, keep_alive
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.roles.records import DestinationData
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.base.errors import MigrRDMAError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def test_what_is_held_goes_on_when_it_is_committed(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        result = await move.restore(held=True)
        # Until it hears that the commit is asked for, it knows that nothing is committed.
        assert [line for line in move.heard if "alive" not in line] == [{"step": "committing"}, {"done": {}}]
        assert [step["name"] for step in result["timeline"]].count("commit") == 1
        assert result["downtime"] > 0
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("answer", ["REBUILD", "CONNECT"])
def test_what_is_held_is_ended_when_it_cannot_be_connected(play: Play, answer: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.restored_faults = {answer: "fails"}
        with pytest.raises(MigrRDMAError):
            await move.restore(held=True)
        last = move.heard[-1]["error"]
        assert last["released"], last
        assert {"step": "committing"} not in move.heard
        move.restored_faults = {}
        await move.restore(held=True)
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("step", ["rebuild", "connect"])
def test_an_agent_that_dies_before_the_commit_has_what_is_held_ended(play: Play, step: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.dst.kill_at = f"destination: {step}"
        async with keep_alive(move.dst):
            with pytest.raises(MigrRDMAError):
                await move.restore(held=True)
            assert move.heard[-1]["error"]["released"]
            await move.restore(held=True)
            await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("step", ["commit", "committed"])
def test_an_agent_that_dies_about_the_commit_decides_when_it_is_back(play: Play, step: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.dst.kill_at = f"destination: {step}"
        async with keep_alive(move.dst):
            try:
                await move.restore(held=True)
            except MigrRDMAError:
                assert move.heard[-1]["error"]["released"]
                await move.restore(held=True)
            await move.both_go_on_after_the_move()

    play(scenario)


def test_what_ends_before_it_was_let_go_can_be_restored_again(play: Play) -> None:
    """It is committed, and nothing of it has run: no partner was told, and the authority is given back."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        seen: list[str] = []

        async def criu_dies() -> None:
            agent, migration = move.dst.agent, move.document["migration"]
            record = agent.store.find(migration, DestinationData)
            assert record is not None
            question = {"migration": migration, "epoch": record.data.epoch}
            answer = await agent.handlers["holding"](move.peer.agent.identity, question)
            seen.extend((record.state, answer["state"]))

        with pytest.raises(MigrRDMAError, match="nothing of them has run"):
            await move.restore(held=True, dies=criu_dies)
        # A partner that asks meanwhile is to wait on.
        assert seen == [State.COMMITTED, State.COMMITTING]
        await move.restore(held=True)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_what_ends_with_its_runtime_before_it_was_let_go_can_be_restored_again(play: Play) -> None:
    """CRIU and the runtime are killed at once: nobody reports that what is committed has not run."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()

        async def criu_dies() -> None:
            assert move.restored is not None
            await move.restored.kill()

        with move.dst.connect() as runtime:
            await asyncio.to_thread(runtime.restore, move.lands_in, move.document)
            await move.is_restored()
            await move.hold(move.dst, dies=criu_dies)
        move.restored = None
        await move.restore(held=True)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_what_criu_has_ended_since_one_of_it_had_died_can_be_restored_again(play: Play) -> None:
    """It had been told that it may let them go."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.goes_on = False
        with pytest.raises(MigrRDMAError, match="CRIU has ended the others"):
            await move.restore(held=True)
        move.goes_on = True
        await move.restore(held=True)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_runtime_that_fails_after_criu_has_let_go_undoes_nothing(play: Play) -> None:
    """The low-level runtime was killed alone, and CRIU has restored all the same."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with move.dst.connect() as runtime:
            await asyncio.to_thread(runtime.restore, move.lands_in, move.document)
            await move.is_restored()
            migration = move.document["migration"]
            report: asyncio.Future[Any] | None = None

            async def fails() -> None:
                nonlocal report
                daemon = move.dst.daemon
                assert daemon is not None
                api = daemon._local.api
                expected = api.expect(migration, move.dst.agent.containers.identify(os.getpid()))
                report = asyncio.ensure_future(asyncio.to_thread(runtime.report, migration, succeeded=False))
                await asyncio.wait((expected,))

            move.before_it_goes_on = fails
            await move.hold(move.dst)
            assert report is not None
            result = await report
        assert result["rdma"]
        await move.both_go_on_after_the_move()

    play(scenario)


def test_what_ends_while_a_restarted_agent_is_in_doubt_can_be_restored_again(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.dst.kill_at = "destination: committed"
        with move.dst.connect() as runtime:
            await asyncio.to_thread(runtime.restore, move.lands_in, move.document)
            await move.is_restored()
            hold = asyncio.ensure_future(move.hold(move.dst))
            await move.dst.killed.wait()
            await move.src.stop()
            await move.dst.restart()
            hold.cancel()
            assert move.restored is not None
            await move.restored.kill()
            report = asyncio.ensure_future(
                asyncio.to_thread(runtime.report, move.document["migration"], succeeded=False)
            )
            await move.src.start()
            with pytest.raises(MigrRDMAError) as failed:
                await report
            assert failed.value.released
        move.restored = None
        await move.restore(held=True)
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("goes_on", [True, False])
def test_an_agent_that_is_restarted_after_the_last_yes_waits_to_hear_what_has_become_of_it(
    play: Play, goes_on: bool
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()

        async def restart() -> None:
            await move.dst.restart()
            record = move.dst.agent.store.find(move.document["migration"], DestinationData)
            assert record is not None and record.data.let_go
            question = {"migration": record.id, "epoch": record.data.epoch}
            answer = await move.dst.agent.handlers["holding"](move.peer.agent.identity, question)
            assert answer["state"] == State.COMMITTING
            await move.say(move.dst, "gone_on", succeeded=goes_on)

        move.before_it_goes_on = restart
        if not goes_on:
            with pytest.raises(MigrRDMAError):
                await move.restore(held=True)
            move.before_it_goes_on = None
        await move.restore(held=True)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_what_is_held_is_ended_with_its_runtime(play: Play) -> None:
    """Its engine removes what a runtime has restored that was killed: it must not be committed by then."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        stands = asyncio.Event()
        move.dst.on_fault_point = lambda step: stands.set() if step == "destination: restored" else None
        with move.dst.connect() as runtime:
            await asyncio.to_thread(runtime.restore, move.lands_in, move.document)
            held = asyncio.ensure_future(move.hold(move.dst))
            await stands.wait()
        heard = await held
        error = heard[-1]["error"]
        assert error["released"] and "the runtime ended" in error["message"]
        assert {"step": "committing"} not in heard
        await move.restore(held=True)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_whoever_holds_it_and_stands_still_may_not_let_it_go_any_more(play: Play) -> None:
    """CRIU is stopped, or frozen with the container: the person who waits is told, and another host may have it."""

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(reconnect=2)
        move = await Move.begin(cluster)
        await move.checkpoint()

        async def stand_still() -> None:
            async with asyncio.timeout(PATIENT_S):
                while move.dst.state() != {"destination": "released"}:
                    await asyncio.sleep(0.05)

        with pytest.raises(MigrRDMAError, match="has not let go in 2 s what it holds"):
            await move.restore(held=True, dies=stand_still)
        await move.restore(held=True)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_what_nobody_restores_is_not_let_go(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        [line] = await move.hold(move.dst)
        assert "was not committed" in line["error"]["message"]
        # The source's own record of it says nothing about what somebody holds there.
        [line] = await move.hold(move.src)
        assert "was not committed" in line["error"]["message"]

    play(scenario)
