"""What a guest does is seen from outside, whether or not it answers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cluster import Cluster
from guest_agent import Agent, Program
from guest_build import Built, compile_c
from guest_process import PATIENT_S
from typer.testing import CliRunner

from migrrdma_runtime import cli
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.base.errors import DrainError, GuestError
from migrrdma_runtime.inspection.process import Process, QueuePair, Thread, look_into, stall_of
from migrrdma_runtime.shim import nic_writes


def until(condition: Callable[[Process], bool], pid: int) -> Process:
    deadline = time.monotonic() + PATIENT_S
    while not condition(found := look_into(pid)):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)  # another process's state: there is no event to wait for
    return found


def in_verb(found: Process) -> list[Thread]:
    return [one for one in found.threads if one.verb]


def queue_pairs(found: Process) -> list[QueuePair]:
    return found.queue_pairs


def test_state_queue_pairs_and_threads_are_read_from_its_memory(stalls: Program, agent: Agent) -> None:
    pid = stalls.process.pid
    stalls.tell("receive 3")
    found = look_into(pid)
    assert found.state == "running"
    assert found.reasons == []
    listed = agent.ask("LIST_QPS").records
    assert {one.number for one in queue_pairs(found)} == {one["vqpn"] for one in listed}
    assert {one.peer for one in queue_pairs(found)} == {one["dest_pqpn"] for one in listed}
    assert sorted(one.receives for one in queue_pairs(found)) == [0, 3]
    assert all(one.state == "RTS" and not one.quiesced for one in queue_pairs(found))
    assert "migrrdma" in {one.name for one in found.threads}
    assert {one.tid for one in found.threads} == {
        int(one.name) for one in Path(f"/proc/{pid}/task").iterdir()
    }
    assert found.stall() == ""
    assert stalls.tell("domain") == "ok"
    assert look_into(pid).reasons


def test_what_devices_may_write_to_is_read_from_its_memory(stalls: Program, agent: Agent) -> None:
    pid = stalls.process.pid
    del agent
    [(start, end)] = nic_writes.reach(pid)
    assert 0 < end - start <= 8192  # its ``memory``, of which each of two devices has a part
    assert nic_writes.why_not_told(pid) == ""


def test_a_thread_in_a_long_verb_is_named_with_how_long(stalls: Program, agent: Agent) -> None:
    pid = stalls.process.pid
    assert stalls.tell("start register at_lock") == "inside"
    found = until(lambda one: bool(in_verb(one)) and in_verb(one)[0].seconds > 1, pid)
    [thread] = in_verb(found)
    assert thread.verb == "ibv_reg_mr"
    assert thread.syscall == "futex"
    assert found.stall().startswith(f"thread {thread.tid} has been in ibv_reg_mr for ")
    assert stall_of(pid)
    agent.send("QUIESCE", {"timeout_ms": 500})
    stalls.tell("go")
    assert stalls.tell("join register") == "returned"
    assert not in_verb(until(lambda one: not in_verb(one), pid))


def test_a_verb_that_waits_for_a_parked_process_says_so(stalls: Program, agent: Agent) -> None:
    pid = stalls.process.pid
    agent.quiesce()
    agent.ask("PARK", {"flags": 0})
    assert stalls.tell("start register free") == "started"
    found = until(lambda one: any(each.waits for each in one.threads), pid)
    assert found.state == "parked"
    assert all(one.quiesced and one.marker == "done" for one in queue_pairs(found))
    [thread] = [one for one in found.threads if one.waits]
    assert "has waited to begin ibv_reg_mr for" in str(thread)
    assert found.stall() == ""  # nothing is wrong with it
    agent.ask("UNDO")
    assert stalls.tell("join register") == "returned"


def test_a_thread_inside_a_post_is_seen(stalls: Program, agent: Agent) -> None:
    stalls.tell("receive 3")
    for _ in range(2):  # a first send goes another way
        stalls.tell("start post free")
        stalls.tell("join post")
    assert stalls.tell("start post at_lock") == "inside"
    found = look_into(stalls.process.pid)
    assert "is inside a call that posts or polls" in found.stall()
    stalls.tell("go")
    assert stalls.tell("join post") == "returned"
    assert agent.ask("INVENTORY").body["migratable"]


def test_a_drain_that_does_not_end_names_the_queue_pair(stalls: Program, agent: Agent) -> None:
    pid = stalls.process.pid
    assert int(stalls.tell("fill")) > 0  # and nobody receives
    agent.send("QUIESCE", {"timeout_ms": 20000})
    found = until(lambda one: one.state == "quiescing" and one.stall() != "", pid)
    assert "its sends have not come back: does the other end post receives?" in found.stall()
    stalls.tell("receive 16")


def test_a_stopped_process_is_named_by_what_stopped_it(stalls: Program, agent: Agent) -> None:
    assert agent.ask("INVENTORY")
    os.kill(stalls.process.pid, signal.SIGSTOP)
    found = until(lambda one: all("stopped" in each.state for each in one.threads), stalls.process.pid)
    assert found.stall() == f"thread {stalls.process.pid} is stopped by a signal"
    assert found.queue_pairs
    os.kill(stalls.process.pid, signal.SIGCONT)
    assert agent.ask("INVENTORY")


def test_the_command_shows_it_to_people_and_programs(stalls: Program, agent: Agent) -> None:
    pid = stalls.process.pid
    assert agent.ask("INVENTORY")
    lines = CliRunner().invoke(cli.app, ["inspect", str(pid)]).output.splitlines()
    assert lines[0] == f"process {pid}: running"
    assert any(line.startswith("  QP 0x") and "RTS" in line for line in lines)
    assert any("(migrrdma): asleep, in " in line for line in lines)
    [shown] = json.loads(CliRunner().invoke(cli.app, ["inspect", str(pid), "--json"]).stdout)
    assert (shown["pid"], shown["state"], shown["stall"]) == (pid, "running", "")


@pytest.mark.parametrize("pid", [os.getpid()], ids=["this one"])
def test_a_process_without_the_library_has_its_threads_only(pid: int) -> None:
    found = look_into(pid)
    assert found.state == ""
    assert os.getpid() in {one.tid for one in found.threads}
    lines = CliRunner().invoke(cli.app, ["inspect", str(pid)]).output.splitlines()
    assert lines[0] == f"process {pid}: no guest library"


# --- in the errors of the agent ----------------------------------------------------------------------------


def play(
    tmp_path: Path, environment: dict[str, str], scenario: Callable[[Guest, Program], Awaitable[None]]
) -> None:
    """Run a scenario with an agent and ``stalls`` as its guest."""

    async def run() -> None:
        cluster = Cluster(tmp_path / "cluster")
        try:
            host = await cluster.host("src", 2)
            host.containers.everybody_else = "c1"
            env = {**environment, "MIGRRDMA_SOCKET": str(host.config.guest_socket)}
            with await asyncio.to_thread(Program, [tmp_path / "stalls"], env, tmp_path / "log") as program:
                async with asyncio.timeout(PATIENT_S):
                    while not host.agent.guests.of_container("c1"):
                        await asyncio.sleep(0.02)  # another process's connection
                [guest] = host.agent.guests.of_container("c1")
                await scenario(guest, program)
        finally:
            await cluster.close()

    (tmp_path / "cluster").mkdir()
    asyncio.run(run())


@pytest.fixture
def environment(built: Built, tmp_path: Path) -> dict[str, str]:
    compile_c(tmp_path / "stalls", Path(__file__).with_name("stalls.c"), "-rdynamic", "-libverbs", "-pthread")
    return {name: value for name, value in built.environment.items() if name != "FAKE_ASYNC"}


def test_a_quiesce_that_a_long_verb_keeps_from_beginning_names_the_thread(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async def scenario(guest: Guest, program: Program) -> None:
        assert await asyncio.to_thread(program.tell, "start register at_lock") == "inside"
        with pytest.raises(GuestError, match=r"thread \d+ has been in ibv_reg_mr for \d+ s$") as refusal:
            await guest.quiesce(None, 0.5, PATIENT_S)
        assert not isinstance(refusal.value, DrainError)
        await asyncio.to_thread(program.tell, "go")
        assert await asyncio.to_thread(program.tell, "join register") == "returned"
        await guest.quiesce(None, 5, PATIENT_S)
        await guest.undo(PATIENT_S)

    play(tmp_path, environment, scenario)


def test_a_guest_that_does_not_answer_because_it_is_stopped_is_said_to_be(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async def scenario(guest: Guest, program: Program) -> None:
        os.kill(program.process.pid, signal.SIGSTOP)
        # All of its threads stand when its parent hears of it, and may answer until then.
        await asyncio.to_thread(os.waitid, os.P_PID, program.process.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(GuestError, match=r"within 0.5 s: thread \d+ is stopped by a signal"):
            await guest.inventory(0.5)
        os.kill(program.process.pid, signal.SIGCONT)

    play(tmp_path, environment, scenario)
