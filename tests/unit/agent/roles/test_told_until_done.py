"""A guest that answers with an error what was decided is told again: a verb that takes long is not the end of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.base.errors import AgentError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

Undo = Callable[[Guest, float], Awaitable[None]]

BUSY = "a verb is under way"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it


@pytest.mark.parametrize("who", ["mover", "partner"])
def test_an_undo_that_a_guest_refuses_is_repeated(play: Play, who: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await getattr(move, who).tell(f"fault UNDO {BUSY}")
        await move.checkpoint(succeeded=False)
        await move.both_go_on_as_before()
        assert getattr(move, who).asked.count("UNDO") == 2

    play(scenario)


def test_a_resume_that_the_partner_refuses_is_repeated(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.partner.tell(f"fault RESUME {BUSY}")
        await move.restore()
        await move.both_go_on_after_the_move()
        assert move.partner.asked.count("RESUME") == 2

    play(scenario)


def test_a_resume_that_the_mover_refuses_is_repeated_and_the_migration_is_not_done_before(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        move.restored_faults = {"RESUME": BUSY}
        await move.checkpoint()
        done_while_pending = []

        def look(step: str) -> None:
            if step == "destination: finish":
                done_while_pending.append(any(one.data.pending for one in move.dst.agent.store.every()))

        move.dst.on_fault_point = look
        await move.restore()
        await move.both_go_on_after_the_move()
        await until(lambda: move.dst.state() == {"destination": "done"})
        assert move.restored is not None
        assert move.restored.asked.count("RESUME") == 2
        assert done_while_pending == [False]

    play(scenario)


def test_a_guest_that_has_ended_is_waited_for_no_more(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        move.restored_faults = {"RESUME": "exit"}
        await move.checkpoint()
        await move.restore()
        await until(lambda: move.src.state() == {"source": "done"})
        assert not any(one.data.pending for one in move.dst.agent.store.every())

    play(scenario)


async def source_dies_in_an_undo(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, undo: Undo) -> Move:
    """Its partner's agent is about to tell the process, by ``undo``, when it dies; it is started again."""
    move = await Move.begin(cluster)
    usual, asked, source_is_gone = Guest.undo, asyncio.Event(), asyncio.Event()

    async def slow(guest: Guest, timeout: float) -> None:
        if guest.name != move.partner.name or source_is_gone.is_set():
            await usual(guest, timeout)
            return
        asked.set()
        await source_is_gone.wait()
        await undo(guest, timeout)

    monkeypatch.setattr(Guest, "undo", slow)
    checkpoint = asyncio.ensure_future(move.checkpoint(succeeded=False))
    await asked.wait()
    await move.src.restart()
    source_is_gone.set()
    with pytest.raises(AgentError, match="was undone when the agent was restarted"):
        await checkpoint
    return move


def test_a_partner_is_told_though_the_agent_that_asked_for_it_is_gone(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has died between what was decided and the telling: the state is final, so nobody would ask again."""

    async def scenario(cluster: Cluster) -> None:
        move = await source_dies_in_an_undo(cluster, monkeypatch, Guest.undo)
        await move.both_go_on_as_before()
        await until(lambda: not any(one.data.pending for one in move.peer.agent.store.every()))

    play(scenario)


def test_what_goes_wrong_then_is_in_the_log(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_guest: Guest, _timeout: float) -> None:
        raise RuntimeError("a mistake of ours")

    async def scenario(cluster: Cluster) -> None:
        await source_dies_in_an_undo(cluster, monkeypatch, fails)
        await until(lambda: "undo from src failed" in caplog.text)

    play(scenario)
