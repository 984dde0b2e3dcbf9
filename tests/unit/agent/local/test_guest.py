"""Why a process cannot be asked, in words that say what has gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from guest_process import PATIENT_S

from migrrdma_runtime.agent.local.budget import Budget
from migrrdma_runtime.agent.local.containers import Process
from migrrdma_runtime.agent.local.guest import MESSAGE_MAX, Guest, unpack
from migrrdma_runtime.agent.local.looks import Looks
from migrrdma_runtime.base.errors import GuestError
from migrrdma_runtime.wire.guest_messages import WIRE


@contextlib.contextmanager
def _connected(state: int = 1) -> Iterator[tuple[Guest, socket.socket, socket.socket]]:
    """A process as its agent has it, with the agent's end of the connection and its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        hello = {"token": 1, "pid": 1, "state": state, "build_id": b"\1" * 20}
        yield Guest(ours, Process(7, "app"), "c1", hello, Budget("c1"), Looks()), ours, theirs


def _refused(what_happens: str) -> str:
    async def ask() -> str:
        with _connected() as (guest, ours, theirs):
            theirs.close()
            if what_happens == "noticed":
                ours.close()  # as whoever reads from it does
                guest.connection_ended()
            with pytest.raises(GuestError) as failure:
                await guest.queue_pairs(PATIENT_S)
            return str(failure.value)

    return asyncio.run(ask())


def test_a_process_that_has_gone_is_said_to_have_closed_its_connection() -> None:
    """That the agent's own end is a "bad file descriptor" by then says nothing to a person."""
    assert _refused("noticed") == "process 7 (app) in container c1 closed its connection to the agent"


def test_one_that_is_going_is_named_with_what_it_was_asked() -> None:
    assert _refused("not noticed yet") == (
        "process 7 (app) in container c1 did not hear list_qps, as its connection to the agent is lost: Broken pipe"
    )


def test_an_answer_to_somebody_who_has_gone_is_no_reason_to_leave_the_process() -> None:
    """As another agent does that asked for a queue pair here, and has given up: the process is asked by others, too."""

    async def ask() -> None:
        with _connected() as (guest, _, theirs):
            reading = asyncio.create_task(guest.read())
            asker = asyncio.create_task(guest.queue_pairs(PATIENT_S))
            first = unpack(await asyncio.to_thread(theirs.recv, MESSAGE_MAX))
            asker.cancel()
            await asyncio.wait([asker])
            theirs.send(WIRE.pack("QPS", {}, [], ident=first.ident))
            another = asyncio.create_task(guest.queue_pairs(PATIENT_S))
            second = unpack(await asyncio.to_thread(theirs.recv, MESSAGE_MAX))
            theirs.send(WIRE.pack("QPS", {}, [], ident=second.ident))
            assert await another == []
            assert not reading.done()
            theirs.close()
            await reading

    asyncio.run(ask())


def test_a_process_that_does_not_answer_is_left_also_if_nobody_waits_any_more() -> None:
    async def ask() -> bytes:
        with _connected() as (guest, _, theirs):
            asker = asyncio.create_task(guest.queue_pairs(0.05))
            await asyncio.to_thread(theirs.recv, MESSAGE_MAX)
            asker.cancel()
            await asyncio.wait([asker])
            return await asyncio.to_thread(theirs.recv, MESSAGE_MAX)

    assert asyncio.run(ask()) == b""


def test_one_that_hangs_up_as_it_was_asked_has_done_so_whatever_it_has_not_read() -> None:
    """The kernel then says that the connection was reset, and drops the answer with it (unix(7), SEQPACKET)."""

    async def ask() -> None:
        with _connected(state=4) as (guest, _, theirs):
            hanging_up = asyncio.create_task(guest.hang_up(PATIENT_S))
            asked = unpack(await asyncio.to_thread(theirs.recv, MESSAGE_MAX))
            looking = asyncio.create_task(guest.find("::ffff:10.0.0.1", 7, PATIENT_S))
            await asyncio.to_thread(theirs.recv, MESSAGE_MAX, socket.MSG_PEEK)
            theirs.send(WIRE.pack("DONE", {}, ident=asked.ident))
            theirs.close()
            with contextlib.suppress(ConnectionResetError):
                await guest.read()
            guest.connection_ended()
            await hanging_up
            with pytest.raises(GuestError, match="closed its connection"):
                await looking

    asyncio.run(ask())
