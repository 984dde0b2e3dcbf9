"""What cannot work is refused while the application is still there, or decided between two that want the same."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from cluster import Cluster, ends
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.local.containers import Process
from migrrdma_runtime.agent.local.guest_objects import Inventory
from migrrdma_runtime.agent.local.looks import Looks
from migrrdma_runtime.agent.local.memory_map import MemoryMap
from migrrdma_runtime.agent.roles import participants
from migrrdma_runtime.agent.roles.participants import Mover, find_participants
from migrrdma_runtime.agent.roles.records import SourceData
from migrrdma_runtime.agent.roles.source import Source
from migrrdma_runtime.base.errors import BusyError, GuestError, MigrRDMAError
from migrrdma_runtime.wire import agent_messages

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def test_a_guest_without_an_open_device_hangs_up_too(play: Play) -> None:
    """CRIU does not dump a process with our socket open."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        idle = await cluster.guest(move.src, "c1", "e" * 16, [], contexts=[])
        await move.checkpoint(succeeded=False)
        assert {"parked": True} in idle.events
        await move.both_go_on_as_before()
        await idle.until_asked("UNDO")
        assert (await idle.show())["state"] == 1
        assert [one["process"] for one in move.document["guests"]] == [move.mover.name, idle.name]

    play(scenario)


def test_an_object_that_cannot_be_moved_and_was_made_during_the_drain_refuses_the_checkpoint(
    play: Play,
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.mover.tell("fault PARK binds a memory window")
        with pytest.raises(GuestError, match=r"container c1 cannot be migrated: .*a memory window"):
            await move.checkpoint()
        assert {"parked": True} not in move.mover.events
        await move.both_go_on_as_before()

    play(scenario)


def test_more_than_a_message_holds_is_refused_before_the_dump(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        monkeypatch.setattr(agent_messages, "MAX_BYTES", 65_600)
        with pytest.raises(
            GuestError,
            match="2 connections to peer, 0 queue pairs for datagrams and 0 memory keys make a message",
        ):
            await move.checkpoint()
        assert {"parked": True} not in move.mover.events
        await move.both_go_on_as_before()

    play(scenario)


def test_a_device_that_is_a_place_elsewhere_is_not_looked_for_there(play: Play) -> None:
    """A process says what its devices are called: the agent would wait for ever in a FIFO of its container's."""

    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 2)
        trap = cluster.directory / "trap" / "ports" / "1" / "gids" / "0"
        trap.parent.mkdir(parents=True)
        os.mkfifo(trap)
        try:
            await cluster.guest(src, "c1", "a" * 16, [], contexts=[1], device="../../trap")
            with (
                src.connect() as agent,
                pytest.raises(GuestError, match=r"a device \.\./\.\./trap, which is not"),
            ):
                async with asyncio.timeout(PATIENT_S):
                    await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
        finally:
            os.close(os.open(trap, os.O_RDWR | os.O_NONBLOCK))  # whoever waits there goes on

    play(scenario)


def test_a_partner_that_takes_the_name_of_another_one_does_not_keep_it_from_going_on(play: Play) -> None:
    """Names hold within a container, and others can learn them; who is to be told of the end is known by them."""

    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [await cluster.host(name, at) for at, name in enumerate(("src", "dst", "peer"), 2)]
        both = [*ends(src, 0x11, peer, 0x21, 1), *ends(src, 0x31, peer, 0x41, 1)]
        mover = await cluster.guest(src, "c1", "a" * 16, both)
        partner = await cluster.guest(peer, "p1", "b" * 16, ends(peer, 0x21, src, 0x11, 1))
        liar = await cluster.guest(peer, "p2", "b" * 16, ends(peer, 0x41, src, 0x31, 1))
        move = Move(cluster, src, dst, peer, mover, partner)
        with pytest.raises(GuestError, match=f"several processes that take part are called {'b' * 16}"):
            await move.checkpoint(succeeded=False)
        for one in (mover, partner, liar):
            shown = await one.show()
            assert shown["state"] == 1
            assert not any(pair["quiesced"] for pair in shown["qps"])

    play(scenario)


def test_memory_that_was_protected_refuses_the_checkpoint_by_name(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 2)
        guest = await cluster.guest(
            src, "c1", "a" * 16, [], contexts=[1], rkeys=[], regions=[[0x1000, 0x1000], [0x8000, 0x2000]]
        )
        mapped = [(0x1000, 0xA000)]
        for allowed, forbidden in (((0x1000, 0x9000), "8192 bytes at 0x8000"), ((0x1000, 0xA000), "")):
            src.containers.maps[guest.pid] = MemoryMap(mapped, [allowed], [allowed])
            with src.connect() as agent:
                call = asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
                if forbidden:
                    with pytest.raises(
                        GuestError, match=f"process {guest.pid} .* registered .*: {forbidden}"
                    ):
                        await call
                    assert "QUIESCE" not in guest.asked
                else:
                    ready = await call
                    assert ready is not None

    play(scenario)


def test_memory_that_is_protected_during_the_drain_refuses_the_checkpoint(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src = await cluster.host("src", 2)
        guest = await cluster.guest(
            src, "c1", "a" * 16, [], contexts=[1], rkeys=[], regions=[[0x1000, 0x1000]]
        )
        mapped = [(0x1000, 0x2000)]
        src.containers.maps[guest.pid] = MemoryMap(mapped, mapped, mapped)

        def protect(step: str) -> None:
            if step == "source: park":
                src.containers.maps[guest.pid] = MemoryMap(mapped, mapped, [])

        src.on_fault_point = protect
        with src.connect() as agent, pytest.raises(GuestError, match="4096 bytes at 0x1000"):
            await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
        await guest.until_asked("UNDO")
        assert {"parked": True} not in guest.events

    play(scenario)


def test_a_child_that_has_only_inherited_devices_does_not_keep_its_container_here(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        move.src.containers.strangers = [("c1", Process(move.mover.pid, "app")), ("c1", Process(7, "loader"))]
        with pytest.raises(GuestError, match=r"process 7 \(loader\) of container c1 has an RDMA device open"):
            await move.checkpoint()
        move.src.containers.heirs[7] = move.mover.pid
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_process_that_begins_with_rdma_while_its_container_is_drained_refuses_the_checkpoint(
    play: Play,
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        late: list[Any] = []
        real = Source._park

        async def park(self: Source, movers: Any) -> None:
            if not late:
                late.append(await cluster.guest(move.src, "c1", "e" * 16, [], contexts=[1]))
            await real(self, movers)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Source, "_park", park)
            with pytest.raises(GuestError, match="opened an RDMA device while the container was quiesced"):
                await move.checkpoint()
        assert {"parked": True} not in move.mover.events
        await move.both_go_on_as_before()

    play(scenario)


def checkpoint_at_once(monkeypatch: pytest.MonkeyPatch, attribute: str) -> None:
    """Have the first two calls of a method of the source's meet."""
    both = asyncio.Barrier(2)
    met: list[None] = []
    real = getattr(Source, attribute)

    async def meet(self: Source, *arguments: Any) -> Any:
        met.append(None)
        if len(met) <= 2:
            await both.wait()
        return await real(self, *arguments)

    monkeypatch.setattr(Source, attribute, meet)


def test_of_two_ends_that_are_checkpointed_at_once_the_second_waits_its_turn(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(turn=30)
        move = await Move.begin(cluster)
        other = Move(cluster, move.peer, move.dst, move.src, move.partner, move.mover, container="p1")
        checkpoint_at_once(monkeypatch, "_suspend")
        # Dumps that fail: both applications are there, and go on.
        await asyncio.gather(move.checkpoint(succeeded=False), other.checkpoint(succeeded=False))
        mine = move.src.agent.store.all(SourceData)
        theirs = move.peer.agent.store.all(SourceData)
        assert len(mine) + len(theirs) == 3  # one came again
        assert {one.state.value for one in (*mine, *theirs)} == {"undone"}
        await move.both_go_on_as_before()

    play(scenario)


def test_a_checkpoint_does_not_wait_for_ever_for_its_turn(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(turn=0.5)
        move = await Move.begin(cluster)
        other = Move(cluster, move.peer, move.dst, move.src, move.partner, move.mover, container="p1")
        checkpoint_at_once(monkeypatch, "_suspend")
        ended = await asyncio.gather(move.checkpoint(), other.checkpoint(), return_exceptions=True)
        records = [one for host in (move.src, move.peer) for one in host.agent.store.all(SourceData)]
        assert sorted(one.state.value for one in records) == ["parked", "undone"]
        [refusal] = [one for one in ended if isinstance(one, BaseException)]
        assert isinstance(refusal, BusyError)
        assert "takes part in migration" in str(refusal)
        assert "waited 0.5 s for it" in str(refusal)

    play(scenario)


def test_two_checkpoints_of_one_container_at_once_are_one_after_the_other(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(turn=30)
        src = await cluster.host("src", 2)
        for name, qps in (
            ("a" * 16, ends(src, 0x11, src, 0x21, 1)),
            ("b" * 16, ends(src, 0x21, src, 0x11, 1)),
        ):
            await cluster.guest(src, "c1", name, qps)
        both = asyncio.Barrier(2)
        met: list[None] = []
        real = find_participants

        async def find(*arguments: Any) -> Any:
            met.append(None)
            if len(met) <= 2:
                await both.wait()
            return await real(*arguments)

        monkeypatch.setattr("migrrdma_runtime.agent.roles.source.find_participants", find)
        under_way: list[str] = []

        def checkpoint() -> None:
            with src.connect() as agent:
                ready = agent.checkpoint("c1", leave_running=False)
                assert ready is not None
                under_way.append(ready["migration"])
                assert len(under_way) == 1
                under_way.remove(ready["migration"])
                agent.report(ready["migration"], succeeded=False)

        await asyncio.gather(*(asyncio.to_thread(checkpoint) for _ in range(2)))
        assert len(met) == 3

    play(scenario)


def test_a_partner_that_has_switched_refuses_a_restore_before_it_is_begun(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.dst.kill_at, move.dst.runtime_patience = "destination: commit", 1
        call = asyncio.ensure_future(move.restore())
        await move.dst.killed.wait()
        await move.dst.stop()
        await move.src.stop()
        with pytest.raises(MigrRDMAError):
            await call
        cluster.impatient(move.peer, partner=0.3)
        await move.peer.restart()
        await move.partner.until_asked("RESUME")  # forwards: the destination might have been running
        assert move.peer.state() == {"partner": "switched"}
        cluster.impatient(
            move.src, doubt=0
        )  # for so long it would leave the claim to a host that does not answer
        await move.src.start()
        with pytest.raises(MigrRDMAError, match=r"has switched migration .* over for claim 1 already"):
            await move.restore(move.src)
        assert move.restored is None

    play(scenario)


@pytest.mark.parametrize("look", ["only_inherits", "memory_map"])
def test_what_a_process_has_open_and_mapped_is_looked_at_beside_the_loop(look: str) -> None:
    """It may be a million of either: whoever has as many would stop the agent for all others."""
    begun, let_go = threading.Event(), threading.Event()

    def waits(*_: Any) -> Any:
        begun.set()
        assert let_go.wait(PATIENT_S)
        return MemoryMap([], [], []) if look == "memory_map" else True

    async def nothing(_seconds: float) -> list[Any]:
        return []

    guest: Any = SimpleNamespace(process=Process(1, "app"), container="c1", memory_regions=nothing)
    mover = Mover(guest, Inventory({"mrs": 1}, ()), [], [], [])
    agent: Any = SimpleNamespace(
        containers=SimpleNamespace(**{look: waits}, looks=Looks()),
        config=SimpleNamespace(deadlines=SimpleNamespace(guest=1)),
    )

    async def run() -> None:
        if look == "memory_map":
            looking = asyncio.ensure_future(participants.require_memory(agent, [mover]))
        else:
            looking = asyncio.ensure_future(
                participants._require_guests(agent, "c1", [Process(1, "app")], [])
            )
        assert await asyncio.to_thread(begun.wait, PATIENT_S)
        let_go.set()  # in the loop: it would never come to this
        await looking

    asyncio.run(run())
