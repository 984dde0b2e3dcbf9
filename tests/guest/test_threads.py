"""Threads that are cancelled, interrupted or stopped inside a verb, at a place that the test chooses."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from guest_agent import PATIENT_S, STATES, WIRE, Agent, GuestError, Program

Start = Callable[..., Program]

UNANSWERED_S = 0.5
"""For how long a guest is listened to that must not answer yet: one that does wrong answers at once."""

DEADLINE_MS = 10_000
"""Of a quiesce whose deadline is to pass, and not before the program has done what it is to pass in."""


def does_not_answer(agent: Agent) -> None:
    agent.connection.settimeout(UNANSWERED_S)
    with pytest.raises(TimeoutError):
        agent.receive()
    agent.connection.settimeout(PATIENT_S)


@pytest.mark.parametrize("verb", ["async", "post"])
def test_thread_that_was_cancelled_in_a_section_holds_nobody_up(
    stalls: Program, agent: Agent, verb: str
) -> None:
    """In the read of an event, or in a doorbell that is a write."""
    stalls.tell("receive 1")
    assert stalls.tell(f"start {verb} {'cancelled' if verb == 'async' else 'cancel'}") == "started"
    assert stalls.tell(f"join {verb}") == "cancelled"
    agent.quiesce()
    agent.resume()
    assert stalls.tell("start register free") == "started"
    assert stalls.tell("join register") == "returned"


def test_thread_that_is_cancelled_in_a_verb_leaves_it_first(stalls: Program, agent: Agent) -> None:
    assert stalls.tell("start register cancel") == "started"
    assert stalls.tell("join register") == "cancelled"
    agent.quiesce()
    agent.resume()


def test_signal_handler_that_polls_does_not_end_the_section_that_it_interrupts(
    stalls: Program, agent: Agent
) -> None:
    stalls.tell("receive 3")
    for _ in range(2):  # a first send goes another way
        stalls.tell("start post free")
        stalls.tell("join post")
    assert stalls.tell("start post signal") == "inside"
    agent.send("QUIESCE", {"timeout_ms": 1000 * PATIENT_S})
    does_not_answer(agent)
    stalls.tell("go")
    assert stalls.tell("join post") == "returned"
    assert agent.answer().kind == "DONE"
    agent.resume()


# --- decisions while a verb is under way ------------------------------------------------------------------


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)  # another process's state: there is no event to wait for


def state(agent: Agent) -> int:
    return int(agent.ask("INVENTORY").body["state"])


@pytest.mark.parametrize("decision", ["UNDO", "RESUME"])
@pytest.mark.parametrize("stays", [True, False])
def test_decision_is_carried_out_when_a_long_verb_has_returned(
    stalls: Program, agent: Agent, decision: str, stays: bool
) -> None:
    stalls.tell("receive 20")
    agent.quiesce(alone_s=3600)
    assert stalls.tell("start register at_lock") == "inside"
    assert int(stalls.tell("fill")) > 0
    agent.send(decision)
    with pytest.raises(GuestError, match="it is decided, and is done when a verb") as refusal:
        agent.answer()
    assert refusal.value.error == errno.EINPROGRESS
    other = {"UNDO": "RESUME", "RESUME": "UNDO"}[decision]
    with pytest.raises(GuestError, match="the other way has been decided"):
        agent.ask(other)
    with pytest.raises(GuestError, match="what was decided before waits"):
        agent.quiesce()
    if not stays:
        agent.vanish()
    assert stalls.tell("poll") == "0"
    stalls.tell("go")
    assert stalls.tell("join register") == "returned"
    wait_until(lambda: stalls.tell("poll") != "0", "what was kept has not been sent")
    if not stays:
        agent.listen()
        agent.accept()
        assert agent.hello["state"] == STATES["MIG_STATE_RUNNING"]
    agent.ask(decision)  # as an agent does that has not heard of it
    agent.quiesce()
    agent.ask("UNDO")


def test_quiesce_whose_deadline_passes_in_a_long_verb_is_undone(stalls: Program, agent: Agent) -> None:
    assert int(stalls.tell("fill")) > 0  # and nobody receives
    agent.send("QUIESCE", {"timeout_ms": DEADLINE_MS})
    wait_until(lambda: stalls.tell("fill") != "0", "sends are not kept")
    assert stalls.tell("start register at_lock") == "inside"
    with pytest.raises(GuestError, match="a verb took too long to return"):
        agent.answer()
    stalls.tell("go")
    assert stalls.tell("join register") == "returned"
    wait_until(lambda: state(agent) == STATES["MIG_STATE_RUNNING"], "the quiesce was not undone")


def test_agent_that_does_not_read_its_answers_stops_no_verb(stalls: Program, agent: Agent) -> None:
    asked = WIRE.pack("LIST_QPS", ident=7)
    agent.connection.settimeout(0.5)
    with pytest.raises(TimeoutError):  # until the guest takes no more: it cannot send
        while True:
            agent.connection.send(asked)
    assert stalls.tell("start register free") == "started"
    wait_until(lambda: stalls.tell("ended register") == "yes", "a verb waits for the agent to read")
    agent.accept()  # the guest has given that connection up
    agent.quiesce()
    agent.resume()


# --- objects that end while they are in use ---------------------------------------------------------------


def test_cq_does_not_end_while_its_event_is_being_returned(start_stalls: Start) -> None:
    stalls = start_stalls("address")
    assert stalls.tell("notify") == "ok"
    assert stalls.tell("start event at_ack") == "inside"
    assert stalls.tell("start destroy_qp free") == "started"
    assert stalls.tell("join destroy_qp") == "returned"
    assert stalls.tell("start destroy_cq free") == "started"
    ends_not_yet(stalls, "destroy_cq")
    stalls.tell("go")
    assert stalls.tell("join event") == "returned"
    stalls.tell("ack event")
    assert stalls.tell("join destroy_cq") == "returned"


def test_qp_does_not_end_while_its_event_is_being_returned(start_stalls: Start) -> None:
    stalls = start_stalls("address")
    assert stalls.tell("raise") == "ok"
    assert stalls.tell("start async at_ack") == "inside"
    assert stalls.tell("start destroy_qp free") == "started"
    ends_not_yet(stalls, "destroy_qp")
    stalls.tell("go")
    assert stalls.tell("join async") == "returned"
    stalls.tell("ack async")
    assert stalls.tell("join destroy_qp") == "returned"


def ends_not_yet(stalls: Program, verb: str) -> None:
    deadline = time.monotonic() + UNANSWERED_S
    while time.monotonic() < deadline:
        assert stalls.tell(f"ended {verb}") == "no", "it has ended what another thread is about to return"
        time.sleep(0.01)  # that nothing happens can only be watched, for a while


def test_poller_posts_no_kept_send_to_a_qp_that_is_being_ended(stalls: Program, agent: Agent) -> None:
    filled = int(stalls.tell("fill"))
    agent.send("QUIESCE", {"timeout_ms": DEADLINE_MS})
    kept = 0

    def keeps() -> bool:
        nonlocal kept
        kept = int(stalls.tell("fill"))
        return kept > 0

    wait_until(keeps, "sends are not kept")
    with pytest.raises(GuestError, match="QPs did not drain in time"):
        agent.answer()
    assert stalls.tell("start destroy_qp at_lock") == "inside"
    stalls.tell(f"receive {filled + kept}")
    assert int(stalls.tell("poll")) == filled
    stalls.tell("go")
    assert stalls.tell("join destroy_qp") == "returned"
    assert stalls.tell("poll") == "0"


# --- children that inherit ----------------------------------------------------------------------------------


def test_child_of_a_fork_holds_no_connection_to_the_agent_open(stalls: Program, agent: Agent) -> None:
    child = Path("/proc") / stalls.tell("fork") / "fd"
    agent.quiesce()
    agent.ask("PARK", {"flags": 1})
    assert agent.connection.recv(1) == b""  # an end that the child had a copy of would not be one
    files = [str(one.readlink()) for one in child.iterdir()]
    assert not [one for one in files if one.startswith("socket:")]
    agent.wake()
    agent.ask("UNDO")


# --- what cannot be moved ---------------------------------------------------------------------------------


def test_what_cannot_be_moved_and_was_made_since_the_inventory_is_not_parked(
    stalls: Program, agent: Agent
) -> None:
    agent.quiesce()
    assert stalls.tell("domain") == "ok"
    for flags in (0, 1):
        with pytest.raises(GuestError, match="an XRC domain") as refusal:
            agent.ask("PARK", {"flags": flags})
        assert refusal.value.error == errno.ENOTSUP
    assert state(agent) == STATES["MIG_STATE_QUIESCED"]
    agent.ask("UNDO")
    assert stalls.tell("start register free") == "started"
    assert stalls.tell("join register") == "returned"
