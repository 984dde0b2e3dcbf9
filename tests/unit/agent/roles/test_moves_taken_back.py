"""A move: its dumped processes stay, frozen, and go on here as long as nobody else is the authority."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster
from moves import Move

from migrrdma_runtime.agent.roles.records import SourceData
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.base.errors import AgentError, MigrRDMAError, RefusedError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_MOVE = "0123456789abcdef"


def _state(move: Move) -> State:
    assert move.src.daemon is not None
    [record] = move.src.daemon.agent.store.all(SourceData)
    return record.state


def _ask(move: Move, operation: str) -> Any:
    with move.src.connect() as agent:
        return getattr(agent, operation)(_MOVE)


async def _asked(move: Move, operation: str) -> dict[str, object]:
    return await asyncio.to_thread(_ask, move, operation)


def test_a_move_that_nobody_has_claimed_is_taken_back_and_both_ends_go_on(play: Play) -> None:
    async def script(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint(move=_MOVE, only_for="dst")
        assert _state(move) is State.PARKED
        answer = await _asked(move, "take_back")
        assert answer == {"taken_back": True, "state": "undone"}
        await move.both_go_on_as_before()
        assert await _asked(move, "take_back") == answer  # asked again: the first answer was lost
        with pytest.raises(AgentError, match="was undone: the container went on running"):
            await move.restore()

    play(script)


def test_a_move_that_is_committed_is_not_taken_back(play: Play) -> None:
    async def script(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint(move=_MOVE, only_for="dst")
        await move.mover.kill()
        await move.restore()
        answer = await _asked(move, "take_back")
        assert answer["taken_back"] is False
        assert answer["state"] in ("committed", "done")
        await move.both_go_on_after_the_move()

    play(script)


def test_nobody_else_restores_a_move(play: Play) -> None:
    async def script(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint(move=_MOVE, only_for="dst")
        with pytest.raises(RefusedError, match="is a move to dst: nobody else restores it"):
            await move.restore(move.peer)
        await _asked(move, "take_back")
        await move.both_go_on_as_before()

    play(script)


def test_a_move_whose_restore_was_given_back_is_taken_back(play: Play) -> None:
    async def script(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint(move=_MOVE, only_for="dst")
        with pytest.raises(MigrRDMAError):
            await move.restore(succeeded=False)
        assert (await _asked(move, "take_back"))["taken_back"] is True
        await move.both_go_on_as_before()

    play(script)


def test_a_move_is_taken_back_of_an_agent_that_was_started_anew(play: Play) -> None:
    async def script(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint(move=_MOVE, only_for="dst")
        await move.src.stop()
        await move.src.start()
        assert _state(move) is State.PARKED
        assert (await _asked(move, "take_back"))["taken_back"] is True
        await move.both_go_on_as_before()

    play(script)


def test_a_move_that_never_came_to_its_checkpoint_is_taken_back_at_once(play: Play) -> None:
    async def script(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        assert await _asked(move, "take_back") == {"taken_back": True, "state": ""}
        assert await _asked(move, "move") == {"state": "", "migration": ""}

    play(script)


def test_nobody_abandons_a_move_whose_processes_are_here(play: Play) -> None:
    async def script(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint(move=_MOVE, only_for="dst")
        assert move.src.daemon is not None
        [record] = move.src.daemon.agent.store.all(SourceData)

        def abandon() -> None:
            with move.src.connect() as agent:
                agent.abandon(record.id, lost=False)

        with pytest.raises(RefusedError, match=f"end it with `migrrdma migration cancel {_MOVE}`"):
            await asyncio.to_thread(abandon)
        await _asked(move, "take_back")
        await move.both_go_on_as_before()

    play(script)


def test_who_is_frozen_for_a_move_is_no_stranger(play: Play) -> None:
    async def script(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        pair = {"ifname": "rxe0", "type": "RC", "state": "RTS", "pid": move.mover.pid, "comm": "guest"}
        move.src.resources.pairs = [pair | {"lqpn": lqpn} for lqpn in (0x11, 0x12)]
        await move.checkpoint(move=_MOVE, only_for="dst")
        assert move.src.daemon is not None
        strangers = move.src.daemon._strangers
        assert await strangers.look() == []
        await _asked(move, "take_back")
        await move.both_go_on_as_before()
        assert await strangers.look() == []

    play(script)
