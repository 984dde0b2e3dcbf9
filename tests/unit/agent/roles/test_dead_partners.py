"""A partner that has died, or closed a connection, costs that connection and not the restore of everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster, ends, hexadecimal
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.roles import partner, partner_guests
from migrrdma_runtime.base.errors import GuestError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it


@pytest.mark.parametrize("restored_on", ["dst", "src"])
def test_a_container_is_restored_though_its_partner_has_died(play: Play, restored_on: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.partner.kill()
        result = await move.restore(cluster.hosts[restored_on])
        assert len(result["lost"]) == 2
        assert result["lost"][0].startswith("QP 0x21 of 127.0.0.4: process ")
        assert result["lost"][0].endswith("on peer has ended")
        assert move.restored is not None
        shown = await move.restored.show()
        assert shown["state"] == 1
        # Towards nobody, on a host that is there: what is sent comes back as a completion in error.
        assert {(qp["dgid"], qp["dest_pqpn"]) for qp in shown["qps"]} == {(hexadecimal(move.peer.gid), 1)}
        await until(lambda: move.src.agent.store.every()[0].state.value == "done")

    play(scenario)


def test_of_two_partners_the_one_that_lives_is_connected(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, dst, peer = [await cluster.host(name, 2 + n) for n, name in enumerate(("src", "dst", "peer"))]
        mover = await cluster.guest(src, "c1", "a" * 16, ends(src, 0x11, peer, 0x21, 2))
        [one, other] = ends(peer, 0x21, src, 0x11, 2)
        living = await cluster.guest(peer, "p1", "b" * 16, [one])
        dead = await cluster.guest(peer, "p2", "c" * 16, [other])
        move = Move(cluster, src, dst, peer, mover, living)
        await move.checkpoint()
        await dead.kill()
        result = await move.restore()
        assert len(result["lost"]) == 1
        await living.until_asked("RESUME")
        assert (await living.show())["qps"][0]["dest_pqpn"] == 0x11 + 0x3000
        assert move.restored is not None
        shown = await move.restored.show()
        assert [qp["dest_pqpn"] for qp in shown["qps"]] == [0x21 + 0x7000, 1]

    play(scenario)


def test_a_connection_that_a_partner_has_closed_is_lost_alone(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.partner.tell("close 1 34")
        result = await move.restore()
        [lost] = result["lost"]
        assert lost.startswith("QP 0x22 of 127.0.0.4: ")
        assert lost.endswith("has closed it")
        assert move.restored is not None
        shown = await move.restored.show()
        assert [qp["dest_pqpn"] for qp in shown["qps"]] == [0x21 + 0x7000, 1]

    play(scenario)


def test_a_connection_that_has_failed_at_the_partner_is_lost_alone(play: Play) -> None:
    """Before the checkpoint: the end that moves does not know yet."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.partner.tell("fail 1 34")
        await move.checkpoint()
        result = await move.restore()
        [lost] = result["lost"]
        assert lost.startswith("QP 0x22 of 127.0.0.4: ")
        assert lost.endswith("has it in the error state")
        assert move.restored is not None
        shown = await move.restored.show()
        assert [qp["dest_pqpn"] for qp in shown["qps"]] == [0x21 + 0x7000, 1]

    play(scenario)


def test_a_connection_that_has_failed_at_the_end_that_moves_concerns_no_partner(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.mover.tell("fail 1 18")
        await move.checkpoint()
        result = await move.restore()
        assert result["lost"] == []
        assert move.restored is not None
        shown = await move.restored.show()
        assert next(qp["dest_pqpn"] for qp in shown["qps"]) == 0x21 + 0x7000

    play(scenario)


def test_a_connection_that_fails_in_the_drain_is_restored_as_it_is(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.mover.tell("fault QUIESCE fails-a-queue-pair")
        await move.checkpoint()
        result = await move.restore()
        assert result["lost"] == []

    play(scenario)


def test_a_queue_pair_that_a_partner_uses_for_another_connection_is_lost_alone(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.partner.tell("reuse 1 34")
        result = await move.restore()
        [lost] = result["lost"]
        assert lost.startswith("QP 0x22 of 127.0.0.4: ")
        assert move.restored is not None
        shown = await move.restored.show()
        assert [qp["dest_pqpn"] for qp in shown["qps"]] == [0x21 + 0x7000, 1]
        await move.partner.until_asked("RESUME")
        assert [qp["dest_pqpn"] for qp in (await move.partner.show())["qps"]] == [0x11 + 0x3000, 0x777]

    play(scenario)


def test_a_partner_that_hangs_is_not_taken_for_dead(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.partner.tell("disconnect")
        await move.partner.until(lambda: {"disconnected": True} in move.partner.events)
        with pytest.raises(GuestError, match=r"on peer, a partner, is not connected to its agent"):
            await move.restore()

    play(scenario)


def test_what_a_partners_agent_gives_as_a_reason_moves_no_cursor(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime shows it to whoever restores: in Docker's words, on a terminal."""
    reason = "\x1b[2J\nit was a success"
    monkeypatch.setattr(
        partner_guests, "_lost", lambda end, _: {"gid": end[0], "qpn": end[1], "reason": reason}
    )

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.partner.kill()
        result = await move.restore()
        assert all(one.isprintable() for one in result["lost"]), result["lost"]

    play(scenario)


def test_nor_does_its_error(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise GuestError("\x1b[2J\nit was a success")

    monkeypatch.setattr(partner, "living_guest", refuse)

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with pytest.raises(GuestError) as refusal:
            await move.restore()
        assert str(refusal.value).isprintable(), str(refusal.value)

    play(scenario)
