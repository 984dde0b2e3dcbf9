"""What a guest can make its agent keep and do has a bound, and others have their turn meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from guest_process import PATIENT_S

from migrrdma_runtime.agent.local import budget
from migrrdma_runtime.agent.local import guest as guest_module
from migrrdma_runtime.agent.local.budget import Budget
from migrrdma_runtime.agent.local.containers import Process
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.looks import Looks
from migrrdma_runtime.base.allowed_rate import Rate
from migrrdma_runtime.base.errors import GuestError, MessageError
from migrrdma_runtime.wire.guest_messages import WIRE

FULL = (WIRE.constants["MIG_MESSAGE_MAX"] - WIRE.layouts["mig_header"].size) // WIRE.layouts[
    "mig_mr_record"
].size
"""Memory regions in a full message."""

Scenario = Callable[[Guest, socket.socket], Awaitable[None]]


def regions(count: int, *, more: bool = True, ident: int = 1) -> bytes:
    return WIRE.pack(
        "MRS", None, [{"addr": one, "length": 1} for one in range(count)], ident=ident, more=more
    )


@contextlib.asynccontextmanager
async def a_guest(shared: Budget) -> AsyncIterator[tuple[Guest, socket.socket]]:
    """An agent's end of one connection, and the other one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        hello = {"token": 1, "pid": 1, "state": 1, "build_id": b"\1" * 20}
        yield Guest(ours, Process(7, "liar"), "c1", hello, shared, Looks()), theirs


def play(scenario: Scenario, shared: Budget | None = None) -> None:
    """Talk to an agent's end of one connection, which is asked for its memory regions."""

    async def run() -> None:
        async with a_guest(shared or Budget("c1")) as (guest, theirs), asyncio.timeout(PATIENT_S):
            await scenario(guest, theirs)

    asyncio.run(run())


async def send(connection: socket.socket, packet: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, packet)


async def refused(guest: Guest, connection: socket.socket, *packets: bytes) -> str:
    """What is said against these answers."""
    asked = asyncio.ensure_future(guest.memory_regions(PATIENT_S))
    reading = asyncio.ensure_future(guest.read())
    for packet in packets:
        await send(connection, packet)
    with pytest.raises(MessageError) as failure:
        await reading
    guest.connection_ended()
    with pytest.raises(GuestError):
        await asked
    return str(failure.value)


@pytest.mark.parametrize("count", [0, 1, FULL - 1])
def test_a_part_that_is_not_full_is_refused(count: int) -> None:
    """In parts of one record, a large answer cost the agent the square of its length."""

    async def scenario(guest: Guest, connection: socket.socket) -> None:
        assert f"a part of MRS with {count} records" in await refused(guest, connection, regions(count))

    play(scenario)


def test_an_answer_in_full_parts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(budget.MOST_OF_AN_ANSWER, "MRS", 2 * FULL + 1)
    shared = Budget("c1")
    monkeypatch.setattr(budget, "MOST_OF_A_CONTAINER", 2 * FULL + 1)

    async def scenario(guest: Guest, connection: socket.socket) -> None:
        reading = asyncio.ensure_future(guest.read())
        for ident in (1, 2):  # what the first has taken is given back
            asked = asyncio.ensure_future(guest.memory_regions(PATIENT_S))
            await asyncio.get_running_loop().sock_recv(connection, 1000)
            for packet in (
                regions(FULL, ident=ident),
                regions(FULL, ident=ident),
                regions(1, more=False, ident=ident),
            ):
                await send(connection, packet)
            assert len(await asked) == 2 * FULL + 1
        reading.cancel()

    play(scenario, shared)


def test_an_answer_of_too_many_records_is_refused_before_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(budget.MOST_OF_AN_ANSWER, "MRS", 2 * FULL)

    async def scenario(guest: Guest, connection: socket.socket) -> None:
        said = await refused(guest, connection, *(regions(FULL) for _ in range(3)))
        assert f"MRS with more than {2 * FULL} records" in said

    play(scenario)


def test_the_processes_of_a_container_have_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST_OF_A_CONTAINER", 3 * FULL)
    shared = Budget("c1")
    shared.take(2 * FULL)  # another one's answer is under way

    async def scenario(guest: Guest, connection: socket.socket) -> None:
        said = await refused(guest, connection, regions(FULL), regions(FULL))
        assert f"container c1 answer with more than {3 * FULL} records at a time" in said

    play(scenario, shared)
    shared.take(FULL)  # whatever it had taken has been given back


@pytest.mark.parametrize("kind", ["contexts", "qps", "keys"])
def test_who_says_it_has_a_million_is_not_asked_for_them(kind: str) -> None:
    async def scenario(guest: Guest, connection: socket.socket) -> None:
        asked = asyncio.ensure_future(guest.inventory(PATIENT_S))
        reading = asyncio.ensure_future(guest.read())
        await asyncio.get_running_loop().sock_recv(connection, 1000)
        body: dict[str, Any] = {"migratable": 1, "state": 1, kind: 1_000_000}
        await send(connection, WIRE.pack("INVENTORY_IS", body, ident=1))
        with pytest.raises(GuestError, match=f"has 1000000 {kind}; \\d+ are the most that can be moved"):
            await asked
        reading.cancel()

    play(scenario)


def spent(container: str) -> Budget:
    """One that has had all its time and more."""
    shared = Budget(container)
    with shared.working():
        end = time.thread_time() + 2 * budget.PROCESSOR.most
        while time.thread_time() < end:
            pass
    return shared


def test_a_container_that_has_had_its_time_waits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its guests say is left where it is, so that they wait; it is taken when there is time again."""
    monkeypatch.setattr(budget, "PROCESSOR", Rate(0.05, 0.05))
    of_one, of_another = spent("c1"), Budget("c2")

    async def answered(guest: Guest, connection: socket.socket) -> None:
        asked = asyncio.ensure_future(guest.memory_regions(PATIENT_S))
        reading = asyncio.ensure_future(guest.read())
        await asyncio.get_running_loop().sock_recv(connection, 1000)
        for packet in (regions(FULL), regions(1, more=False)):
            await send(connection, packet)
        await asked
        reading.cancel()

    async def scenario(guest: Guest, connection: socket.socket) -> None:
        waits = asyncio.ensure_future(answered(guest, connection))
        async with a_guest(of_another) as (another, its):
            await answered(another, its)
        assert not waits.done()
        await waits

    play(scenario, of_one)


def test_what_is_made_of_an_answer_is_its_containers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is more than to receive it."""
    monkeypatch.setattr(budget, "PROCESSOR", Rate(0.2, 0.001))
    shared = Budget("c1")

    def by_domain(_records: Any) -> dict[Any, Any]:
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        return {}

    monkeypatch.setattr(guest_module, "by_domain", by_domain)

    async def scenario(guest: Guest, connection: socket.socket) -> None:
        asked = asyncio.ensure_future(guest.remote_numbers(PATIENT_S))
        reading = asyncio.ensure_future(guest.read())
        await asyncio.get_running_loop().sock_recv(connection, 1000)
        await send(connection, regions(1, more=False))
        await asked
        assert shared.rest() > 0
        reading.cancel()

    play(scenario, shared)


def test_a_guest_that_talks_on_leaves_others_their_turn() -> None:
    """All that has come is received without a wait: without a pause of its own, reading took the loop for itself."""

    async def scenario(guest: Guest, connection: socket.socket) -> None:
        packets = [regions(FULL) for _ in range(5)]
        asked = asyncio.ensure_future(guest.memory_regions(PATIENT_S))
        await asyncio.sleep(0)
        for packet in packets:
            connection.send(packet)
        turns = 0
        reading = asyncio.ensure_future(guest.read())
        while guest._answers[1].records < 5 * FULL:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 5
        reading.cancel()
        guest.connection_ended()
        with pytest.raises(GuestError):
            await asked

    play(scenario)
