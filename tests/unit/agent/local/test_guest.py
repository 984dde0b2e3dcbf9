"""Why a process cannot be asked, in words that say what has gone."""

from __future__ import annotations

import asyncio
import socket

import pytest
from guest_process import PATIENT_S

from migrrdma_runtime.agent.local.budget import Budget
from migrrdma_runtime.agent.local.containers import Process
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.looks import Looks
from migrrdma_runtime.base.errors import GuestError


def _refused(what_happens: str) -> str:
    async def ask() -> str:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            hello = {"token": 1, "pid": 1, "state": 1, "build_id": b"\1" * 20}
            guest = Guest(ours, Process(7, "app"), "c1", hello, Budget("c1"), Looks())
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
