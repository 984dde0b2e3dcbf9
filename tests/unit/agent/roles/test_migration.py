"""A migration by the docker commands' flow, between real agents on loopback; and what refuses one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster, ends
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.local.containers import Process
from migrrdma_runtime.agent.local.objections import Objections
from migrrdma_runtime.agent.roles.records import SourceData
from migrrdma_runtime.base.errors import (
    DrainError,
    GuestError,
    ManifestError,
    MigrRDMAError,
    RefusedError,
    RestoreError,
    UnreachableError,
)
from migrrdma_runtime.wire import manifest, manifest_schema, remote_keys

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def learnt(process: str, context: int, pd: int = 0) -> str:
    """What the fake guest calls the map of the keys of a process's protection domain."""
    return str(int(remote_keys.map_name(process, context, pd), 16))


def test_a_container_moves_and_its_partner_goes_on_with_it(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        dumped = await move.checkpoint()
        assert [step["name"] for step in dumped["timeline"]] == ["suspend", "drain", "dump"]
        manifest_schema.validate(move.document)
        assert move.src.state() == {"source": "parked"}
        result = await move.restore()
        await move.both_go_on_after_the_move()
        here = ["suspend", "drain", "dump"]
        there = ["claim", "restore", "reconnect", "rebuild", "connect", "commit", "switch"]
        assert [step["name"] for step in result["timeline"]] == here + there
        assert 0 < result["downtime"] < result["blackout"]["peer"]
        assert move.peer.state() == {"partner": "switched"}
        # The partner has learnt where the mover's memory is now.
        assert (await move.partner.show())["learnt"] == {learnt(move.mover.name, 1): 2}

    play(scenario)


def two_contexts(one: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These queue pairs, each of another context."""
    return [{**pair, "context": context} for context, pair in enumerate(one, 1)]


def test_equal_keys_of_two_devices_are_two_keys(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [await cluster.host(name, 2 + n) for n, name in enumerate(("src", "dst", "peer"))]
        keys = {"1": [0x100, 0x200], "2": [0x100, 0x200, 0x300]}
        here = two_contexts(ends(src, 0x11, peer, 0x21, 2))
        mover = await cluster.guest(src, "c1", "a" * 16, here, rkeys=keys)
        partner = await cluster.guest(peer, "p1", "b" * 16, two_contexts(ends(peer, 0x21, src, 0x11, 2)))
        move = Move(cluster, src, dst, peer, mover, partner, restored_spec={"rkeys": keys})
        await move.checkpoint()
        await move.restore()
        shown = await partner.show()
        names = [learnt(mover.name, context) for context in (1, 2)]
        assert shown["learnt"] == dict(zip(names, (2, 3), strict=True))
        assert [str(qp["peer"]) for qp in shown["qps"]] == names

    play(scenario)


def test_equal_keys_of_two_devices_are_two_keys_within_a_container(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [await cluster.host(name, 2 + n) for n, name in enumerate(("src", "dst", "peer"))]
        keys = {"1": [0x100, 0x200], "2": [0x100, 0x200, 0x300]}
        inside = two_contexts(ends(src, 0x51, src, 0x52, 1) + ends(src, 0x52, src, 0x51, 1))
        outside = ends(src, 0x11, peer, 0x21, 1)
        mover = await cluster.guest(src, "c1", "a" * 16, inside + outside, rkeys=keys)
        partner = await cluster.guest(peer, "p1", "b" * 16, ends(peer, 0x21, src, 0x11, 1))
        move = Move(cluster, src, dst, peer, mover, partner, restored_spec={"rkeys": keys})
        await move.checkpoint()
        await move.restore()
        assert move.restored is not None
        shown = await move.restored.show()
        assert shown["learnt"] == {learnt(mover.name, 1): 2, learnt(mover.name, 2): 3}
        assert [str(qp["peer"]) for qp in shown["qps"]][:2] == [learnt(mover.name, 2), learnt(mover.name, 1)]

    play(scenario)


def test_it_is_restored_on_the_host_that_it_was_dumped_on(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.restore(move.src)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_the_partner_is_on_the_source_or_on_the_destination(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst = await cluster.host("src", 2), await cluster.host("dst", 3)
        for peer, restored_on in ((src, dst), (dst, dst)):
            move = Move(cluster, src, dst, peer, *await cluster.pair(src, peer))
            await move.checkpoint()
            await move.restore(restored_on)
            await move.both_go_on_after_the_move()
            for guest in cluster.guests:
                await guest.kill()

    play(scenario)


def test_processes_of_one_container_are_connected_to_each_other_again(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst = await cluster.host("src", 2), await cluster.host("dst", 3)
        specs = [("a" * 16, ends(src, 0x11, src, 0x21, 2)), ("b" * 16, ends(src, 0x21, src, 0x11, 2))]
        for name, qps in specs:
            await cluster.guest(src, "c1", name, qps)
        with src.connect() as agent:
            ready = await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
            assert ready is not None
            for guest in cluster.guests:
                await guest.kill()
            await asyncio.to_thread(agent.report, ready["migration"], succeeded=True)
        with dst.connect() as agent:
            migration = await asyncio.to_thread(agent.restore, "c2", ready["manifest"])
            gid = "00" * 10 + "ffff7f000003"
            one, other = [await cluster.guest(dst, "c2", name, qps, state=4, gid=gid) for name, qps in specs]
            await asyncio.to_thread(agent.report, migration, succeeded=True)
        mine, theirs = await one.show(), await other.show()
        for a, b in zip(mine["qps"], theirs["qps"], strict=True):
            assert (a["pqpn"], a["sgid"]) == (b["dest_pqpn"], b["dgid"])
            assert (b["pqpn"], b["sgid"]) == (a["dest_pqpn"], a["dgid"])
            assert a["psns"] == b["psns"][::-1]

    play(scenario)


def test_an_internal_connection_without_its_other_end_is_refused_by_name(play: Play) -> None:
    """A manifest that somebody has changed: it was an internal error, which says nothing."""

    async def scenario(cluster: Cluster) -> None:
        src, dst = await cluster.host("src", 2), await cluster.host("dst", 3)
        specs = [("a" * 16, ends(src, 0x11, src, 0x21, 1)), ("b" * 16, ends(src, 0x21, src, 0x11, 1))]
        for name, qps in specs:
            await cluster.guest(src, "c1", name, qps)
        with src.connect() as agent:
            ready = await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
            assert ready is not None
            for guest in cluster.guests:
                await guest.kill()
            await asyncio.to_thread(agent.report, ready["migration"], succeeded=True)
        document = {key: value for key, value in ready["manifest"].items() if key != "digest"}
        document["internal"] = document["internal"][:1]
        with dst.connect() as agent:
            migration = await asyncio.to_thread(agent.restore, "c2", manifest.seal(document))
            gid = "00" * 10 + "ffff7f000003"
            for name, qps in specs:
                await cluster.guest(dst, "c2", name, qps, state=4, gid=gid)
            with pytest.raises(
                ManifestError, match="in the same container, which the checkpoint does not have"
            ):
                await asyncio.to_thread(agent.report, migration, succeeded=True)

    play(scenario)


def test_a_container_without_rdma_is_none_of_the_agents_business(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 2)
        await cluster.guest(src, "c9", "a" * 16, [])
        with src.connect() as agent:
            assert await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False) is None

    play(scenario)


@pytest.mark.parametrize(("succeeded", "leave_running"), [(False, False), (True, True), (False, True)])
def test_both_ends_go_on_when_the_dump_failed_or_left_the_container_running(
    play: Play, succeeded: bool, leave_running: bool
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint(succeeded=succeeded, leave_running=leave_running)
        await move.both_go_on_as_before()
        assert move.src.state() == {"source": "undone"}
        with pytest.raises(MigrRDMAError, match="went on running after this checkpoint"):
            await move.restore()

    play(scenario)


# --- refusals: one clear line, and the application goes on ----------------------------------------------


async def refused(move: Move, kind: type[MigrRDMAError], match: str) -> str:
    with pytest.raises(kind, match=match) as caught:
        await move.checkpoint()
    assert "\n" not in str(caught.value)
    await move.both_go_on_as_before()
    return str(caught.value)


def test_a_partner_without_the_guest_library_refuses_the_checkpoint(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        lonely = await cluster.guest(move.src, "c1", "c" * 16, ends(move.src, 0x31, move.peer, 0x41, 1))
        await refused(move, GuestError, "on peer, no process with the guest library has QP 0x41 of 127.0.0.4")
        assert (await lonely.show())["state"] == 1

    play(scenario)


def test_two_processes_that_claim_one_queue_pair_refuse_the_checkpoint(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await cluster.guest(move.peer, "p2", "d" * 16, ends(move.peer, 0x21, move.src, 0x11, 1))
        await refused(move, GuestError, "both claim QP 0x21")

    play(scenario)


def test_a_process_with_a_device_and_no_library_refuses_the_checkpoint(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        move.src.containers.strangers.append(("c1", Process(4711, "static-rdma")))
        await refused(
            move, GuestError, r"process 4711 \(static-rdma\) of container c1 has an RDMA device open"
        )

    play(scenario)


def test_what_cannot_be_migrated_refuses_the_checkpoint_with_its_reasons(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        one = await cluster.guest(move.src, "c1", "e" * 16, [], reasons=["a memory window", "an XRC domain"])
        other = await cluster.guest(move.src, "c1", "f" * 16, [], reasons=["an address handle"])
        message = await refused(move, GuestError, "container c1 cannot be migrated")
        assert message.count("container") == 1
        assert f"process {one.pid} (" in message
        assert f"process {other.pid} (" in message
        assert message.count("process") == 2
        assert "): a memory window, an XRC domain" in message
        assert "): an address handle" in message

    play(scenario)


def test_what_would_refuse_a_checkpoint_is_told_before_one_is_asked_for(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await cluster.guest(move.src, "c1", "e" * 16, [], reasons=["a memory window", "an XRC domain"])

        def ask() -> dict[str, list[str] | None]:
            with move.src.connect() as agent:
                # On a busy machine a process may not answer in the time that a person is to wait for it.
                while True:
                    found = {one["process"]: one["reasons"] for one in agent.objections()["guests"]}
                    if None not in found.values():
                        return found

        assert await asyncio.to_thread(ask) == {
            move.mover.name: [],
            "e" * 16: ["a memory window", "an XRC domain"],
        }

    play(scenario)


def test_a_process_that_is_stopped_is_asked_once_and_not_hung_up(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        [guest] = move.src.agent.guests.all()
        objections = Objections()
        os.kill(move.mover.pid, signal.SIGSTOP)
        try:
            assert await objections.of([guest]) == {guest: None}
            assert await objections.of([guest]) == {guest: None}
        finally:
            os.kill(move.mover.pid, signal.SIGCONT)
        # Its late answer is taken, and the connection is the one that it was.
        async with asyncio.timeout(PATIENT_S):
            while (found := await objections.of([guest])) == {guest: None}:
                pass
        assert found == {guest: ()}
        assert move.src.agent.guests.all() == [guest]
        await objections.stop()

    play(scenario)


def test_an_agent_that_is_down_refuses_the_checkpoint(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.src.stop()
        with pytest.raises(UnreachableError, match="systemctl start migrrdma-agent"):
            await move.checkpoint()

    play(scenario)


def test_a_partners_agent_that_is_down_refuses_the_checkpoint(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.peer.stop()
        with pytest.raises(
            UnreachableError, match=r"no connection to the agent at 127.0.0.4.*is migrrdma-agent"
        ):
            await move.checkpoint()
        assert (await move.mover.show())["state"] == 1
        await move.peer.start()
        await move.both_go_on_as_before()

    play(scenario)


@pytest.mark.parametrize("who", ["mover", "partner"])
def test_a_drain_that_does_not_end_refuses_the_checkpoint_and_names_the_queue_pairs(
    play: Play, who: str
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await getattr(move, who).tell("fault QUIESCE QPs did not drain in time")
        message = await refused(move, DrainError, "did not drain within the deadline")
        assert ("QP 0x11, QP 0x12" if who == "mover" else "QP 0x21, QP 0x22") in message
        [record] = move.src.agent.store.all(SourceData)
        assert record.data.reason == message
        assert [step["name"] for step in record.data.timeline] == ["suspend", "drain"]

    play(scenario)


@pytest.mark.parametrize("who", ["mover", "partner"])
def test_a_process_that_hangs_refuses_the_checkpoint_within_the_deadline(play: Play, who: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=5, drain=1)
        move = await Move.begin(cluster)
        await getattr(move, who).tell("fault QUIESCE silent")
        await refused(move, GuestError, "did not answer quiesce within")

    play(scenario)


def test_a_partner_that_takes_part_in_another_migration_refuses_the_checkpoint(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        qps = ends(move.peer, 0x51, move.dst, 0x61, 1)
        # The partner's own container is to move, while it waits for the first one's restore.
        with move.peer.connect() as agent, pytest.raises(RefusedError, match="p1 takes part in migration"):
            await asyncio.to_thread(agent.checkpoint, "p1", leave_running=False)
        assert qps

    play(scenario)


# --- a restore that cannot be -----------------------------------------------------------------------------


async def spoiled(move: Move, change: Callable[[Any], None]) -> None:
    """The manifest, changed and sealed anew."""
    document = {key: value for key, value in move.document.items() if key not in ("digest", "version")}
    change(document)
    move.document = manifest.seal(document)


def test_a_restore_without_the_guest_library_of_that_build_is_refused(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await spoiled(move, lambda document: document["guests"][0].update(build_id="cd" * 20))
        with pytest.raises(RestoreError, match=r"build-id cdcd.*copy .*guest/cdcd.* from src"):
            await move.restore()

    play(scenario)


def test_a_damaged_manifest_is_refused(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.document["container"] = "another"
        with pytest.raises(ManifestError, match="digest"):
            await move.restore()

    play(scenario)


@pytest.mark.parametrize("token", ["00" * 32, "ff" * 32])
def test_a_wrong_token_is_refused_by_the_source(play: Play, token: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        good = move.document
        await spoiled(move, lambda document: document.update(token=token))
        with pytest.raises(RefusedError, match="that is not the key of migration"):
            await move.restore()
        move.document = good
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_checkpoint_is_restored_once(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.restore()
        moved = move.restored
        with pytest.raises(RefusedError, match="was restored on dst already"):
            await move.restore(move.src)
        move.restored = moved

    play(scenario)


def test_two_hosts_cannot_restore_it_at_once(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with move.src.connect() as first:
            await asyncio.to_thread(first.restore, "c3", move.document)
            with pytest.raises(RefusedError, match="is being restored on src"):
                await move.restore()
            with pytest.raises(RestoreError):
                await asyncio.to_thread(first.report, move.document["migration"], succeeded=False)
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_restore_that_failed_can_be_tried_again_elsewhere(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with pytest.raises(RestoreError, match="could not be restored"):
            await move.restore(succeeded=False)
        await move.restore(move.src)
        await move.both_go_on_after_the_move()

    play(scenario)
