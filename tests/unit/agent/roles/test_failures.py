"""Agents killed at every step, messages lost in either direction: the application is always at one place.

Whatever is broken, in the end the container runs on the source or on the destination, not on both, and its
partner is connected to it there and sends.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from cluster import Cluster, dropping, ends, keep_alive
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.roles.records import SourceData
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.base.errors import MigrRDMAError, RestoreError, UnreachableError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

UNTIL_DUMPED = ["suspend peer", "drain", "park", "describe", "hang up", "dumping"]
UNTIL_COMMITTED = ["claim", "confirm", "restored", "rebuild", "prepare peer", "connect"]
FROM_COMMIT_ON = ["commit", "committed", "switch", "finish"]


@pytest.mark.parametrize("step", UNTIL_DUMPED)
def test_the_sources_agent_dies_before_the_dump(play: Play, step: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        move.src.kill_at = f"source: {step}"
        async with keep_alive(move.src):
            with pytest.raises(MigrRDMAError, match="ended in the middle"):
                await move.checkpoint()
            await move.both_go_on_as_before()
        assert move.src.state() == {"source": "undone"}
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("when", ["QUIESCE", "PARK"])
@pytest.mark.parametrize(("how", "qpn"), [("connects", "411"), ("reconnects", "11")])
def test_a_connection_made_in_the_last_moment_is_not_lost(play: Play, when: str, how: str, qpn: str) -> None:
    """Its other end was not asked to take part; once a guest is parked, there is no later moment."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.mover.tell(f"fault {when} {how}")
        with pytest.raises(
            MigrRDMAError, match=rf"came or went while it was quiesced \(QP 0x{qpn}\): try again"
        ):
            await move.checkpoint()
        assert {"parked": True} not in move.mover.events
        assert move.src.state() == {"source": "undone"}
        for end, count in ((move.mover, 3 if how == "connects" else 2), (move.partner, 2)):
            quiesced = [qp["quiesced"] for qp in (await end.show())["qps"]]
            assert quiesced == [False] * count

    play(scenario)


def test_the_sources_agent_dies_during_the_dump(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        move.src.kill_at = "source: dumped"
        async with keep_alive(move.src):
            dumped = await move.checkpoint()
        assert dumped["migration"] == move.document["migration"]
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("succeeded", [True, False])
def test_the_sources_agent_is_restarted_while_the_runtime_dumps(play: Play, succeeded: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        with move.src.connect() as agent:
            ready = await in_thread(agent.checkpoint, "c1", leave_running=False)
            move.document = ready["manifest"]
            await move.src.restart()
            if succeeded:
                await move.mover.kill()
            await in_thread(agent.report, ready["migration"], succeeded=succeeded)
        if succeeded:
            await move.restore()
            await move.both_go_on_after_the_move()
        else:
            await move.both_go_on_as_before()

    play(scenario)


@pytest.mark.parametrize("step", UNTIL_COMMITTED)
def test_the_destinations_agent_dies_before_the_commit(play: Play, step: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.dst.kill_at = f"destination: {step}"
        async with keep_alive(move.dst):
            with pytest.raises(MigrRDMAError):
                await move.restore()
            await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("step", FROM_COMMIT_ON)
def test_the_destinations_agent_dies_at_the_commit_or_after_it(play: Play, step: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.dst.kill_at = f"destination: {step}"
        async with keep_alive(move.dst):
            if step == "commit":  # it had not asked yet: that is before the commit
                with pytest.raises(MigrRDMAError):
                    await move.restore()
            await move.restore()
            await move.both_go_on_after_the_move()

    play(scenario)


def test_the_sources_agent_dies_as_it_commits(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.src.kill_at = "arbiter: commit"
        async with keep_alive(move.src):
            await move.restore()
            await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("step", ["suspend", "drain"])
def test_the_partners_agent_dies_before_the_dump(play: Play, step: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        move.peer.kill_at = f"partner: {step}"
        async with keep_alive(move.peer):
            with pytest.raises(MigrRDMAError):
                await move.checkpoint()
            await move.both_go_on_as_before()

    play(scenario)


@pytest.mark.parametrize("step", ["prepare", "prepared"])
def test_the_partners_agent_dies_before_the_commit(play: Play, step: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.peer.kill_at = f"partner: {step}"
        async with keep_alive(move.peer):
            with pytest.raises(MigrRDMAError):
                await move.restore()
            await restore_when_reachable(move)
            await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("step", ["switch", "settle"])
def test_the_partners_agent_dies_after_the_commit(play: Play, step: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.peer.kill_at = f"partner: {step}"
        async with keep_alive(move.peer):
            await move.restore()
            await move.both_go_on_after_the_move()

    play(scenario)


def test_every_agent_is_restarted_while_a_checkpoint_waits(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        for host in (move.src, move.dst, move.peer):
            await host.restart()
        await move.partner.until(lambda: move.partner.events.count({"welcome": True}) == 2)
        assert "UNDO" not in move.partner.asked
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("reply", [False, True], ids=["the request", "the reply"])
@pytest.mark.parametrize("name", ["hello", "suspend", "drain"])
def test_a_message_of_the_source_is_lost(play: Play, name: str, reply: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        with dropping(move.src, name, reply=reply) as lost, pytest.raises(MigrRDMAError, match="was lost"):
            await move.checkpoint()
        assert lost
        await move.both_go_on_as_before()

    play(scenario)


@pytest.mark.parametrize("reply", [False, True], ids=["the request", "the reply"])
def test_the_source_cannot_tell_the_partner_that_it_was_undone(play: Play, reply: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        with dropping(move.src, "undo", reply=reply):
            await move.checkpoint(succeeded=False)
            await move.both_go_on_as_before()  # the partner has asked

    play(scenario)


@pytest.mark.parametrize("reply", [False, True], ids=["the request", "the reply"])
@pytest.mark.parametrize("name", ["claim", "confirm", "prepare"])
def test_a_message_of_the_destination_is_lost_before_the_commit(play: Play, name: str, reply: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with dropping(move.dst, name, reply=reply), pytest.raises(MigrRDMAError, match="was lost"):
            await move.restore()
        await move.restore(move.src)
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("reply", [False, True], ids=["the request", "the reply"])
def test_a_claim_that_cannot_be_given_back_lapses_all_the_same(play: Play, reply: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with dropping(move.dst, "release", "retract", reply=reply):
            with pytest.raises(RestoreError):
                await move.restore(succeeded=False)
            await move.restore(move.src)  # the source has asked the first claim's holder
            await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("reply", [False, True], ids=["the request", "the reply"])
def test_whether_the_commit_was_accepted_is_never_learnt(play: Play, reply: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with (
            dropping(move.dst, "commit", reply=reply),
            pytest.raises(RestoreError, match="could not be learnt"),
        ):
            await move.restore()
        assert move.dst.state() == {"destination": "released"}
        await move.restore(move.src)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_commit_that_was_given_back_is_known_to_the_next_attempt(play: Play) -> None:
    """The source had committed, and has heard neither that nor that it was given back: the next claim asks."""

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(ask=30)
        move = await Move.begin(cluster)
        await move.checkpoint()
        with (
            dropping(move.dst, "commit", reply=True),
            dropping(move.dst, "release", reply=False),
            pytest.raises(RestoreError, match="could not be learnt"),
        ):
            await move.restore()
        assert move.src.state() == {"source": "committed"}
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize("reply", [False, True], ids=["the request", "the reply"])
@pytest.mark.parametrize("name", ["switch", "finish"])
def test_a_message_after_the_commit_is_lost(play: Play, name: str, reply: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with dropping(move.dst, name, reply=reply):
            await move.restore()
            await move.both_go_on_after_the_move()  # the partner has asked

    play(scenario)


def test_a_destination_that_is_gone_for_good_loses_its_claim(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with move.dst.connect() as agent:
            await in_thread(agent.restore, "c2", move.document)
        await move.dst.stop()
        with pytest.raises(MigrRDMAError, match="is being restored on dst, and cannot be asked"):
            await move.restore(move.src)
        [record] = move.src.agent.store.all(SourceData)
        record.data.claimed -= 3600  # it has had time enough
        await move.restore(move.src)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_partner_that_hears_of_nobody_gives_up_backwards_and_no_restore_succeeds(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        cluster.impatient(move.peer, partner=0.3)
        await move.peer.restart()
        await move.partner.until(lambda: move.partner.events.count({"welcome": True}) == 2)
        await move.checkpoint()
        await move.src.stop()
        await move.partner.until_asked("UNDO")
        assert move.peer.state() == {"partner": "lost"}
        await move.src.start()
        with pytest.raises(MigrRDMAError, match=r"has given migration .* up: nothing was heard of it for"):
            await move.restore()
        assert move.restored is None

    play(scenario)


def test_a_partner_waits_as_long_as_somebody_says_that_it_is_to_wait(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        cluster.impatient(move.peer, partner=0.5)
        await move.peer.restart()
        await move.partner.until(lambda: move.partner.events.count({"welcome": True}) == 2)
        await move.checkpoint()
        begin = move.partner.asked.count("LIST_CONTEXTS")
        # The guest counts as well, so each word is passed on to it: ten of them take longer than the deadline.
        await move.partner.until(lambda: move.partner.asked.count("LIST_CONTEXTS") >= begin + 10)
        assert move.peer.state() == {"partner": "suspended"}
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_partner_that_went_on_without_its_agent_is_not_moved_to(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.partner.kill()
        qps = ends(move.peer, 0x21, move.src, 0x11, 2)
        move.partner = await cluster.guest(move.peer, "p1", "b" * 16, qps, goes_on_without_an_agent=True)
        await move.checkpoint()
        await move.peer.restart()
        await move.partner.until(lambda: move.partner.events.count({"welcome": True}) == 2)
        with pytest.raises(MigrRDMAError, match="went on while it had no agent"):
            await restore_when_reachable(move)

    play(scenario)


@pytest.mark.parametrize("role", ["src", "dst", "peer"])
def test_a_full_disk_is_an_error_like_any_other(
    play: Play, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        full = getattr(move, role).agent.store

        def begin(store: Store) -> Any:
            if store is full:
                raise sqlite3.OperationalError("database or disk is full")
            return real(store)

        real = Store._transaction
        if role != "dst":
            with monkeypatch.context() as patch:
                patch.setattr(Store, "_transaction", begin)
                with pytest.raises(MigrRDMAError, match="disk is full"):
                    await move.checkpoint()
            await move.both_go_on_as_before()
        await move.checkpoint()
        with monkeypatch.context() as patch:
            patch.setattr(Store, "_transaction", begin)
            with pytest.raises(MigrRDMAError, match="disk is full"):
                await move.restore()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


async def restore_when_reachable(move: Move) -> None:
    """As a user would: again and again, while an agent is just being restarted."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            try:
                await move.restore()
                return
            except UnreachableError:
                await asyncio.sleep(0.1)


async def in_thread(function: Callable[..., object], *args: object, **more: object) -> dict[str, str]:
    return cast("dict[str, Any]", await asyncio.to_thread(function, *args, **more))


@pytest.mark.parametrize("dumped", [False, True])
def test_the_runtime_dies_during_the_dump(play: Play, dumped: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        with move.src.connect() as agent:
            ready = await in_thread(agent.checkpoint, "c1", leave_running=False)
            move.document = cast("dict[str, Any]", ready["manifest"])
            if dumped:
                await move.mover.kill()  # which CRIU does last: nothing was left to be done
        if dumped:
            await restore_when_parked(move)
            await move.both_go_on_after_the_move()
        else:
            await move.both_go_on_as_before()

    play(scenario)


def test_the_runtime_dies_during_the_restore(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with move.dst.connect() as agent:
            await in_thread(agent.restore, "c2", move.document)
        await restore_when_parked(move)
        await move.both_go_on_after_the_move()

    play(scenario)


async def restore_when_parked(move: Move) -> None:
    """Restore on the source's host, once its agent has noticed that a runtime has died."""
    async with asyncio.timeout(PATIENT_S):
        while move.src.state() != {"source": "parked"}:
            await asyncio.sleep(0.02)  # the agent's own state: no message tells of it
    await move.restore(move.src)
