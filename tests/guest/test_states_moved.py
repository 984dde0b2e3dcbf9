"""Queue pairs that are moved in whatever state they are in, above all those that have failed or are stopped."""

from __future__ import annotations

import pytest
from guest_agent import MOVING, PARTNER, PATIENT_S, Agent, GuestError
from guest_moves import GIDS, SAME_INDEX, move, partner_move, rebuild_and_resume
from guest_shell import ERR, INIT, RESET, RTR, SQD, Shell

POSTED = "2"
"""Of ``enum mig_marker``."""


def listed_state(shell: Shell, agent: Agent, name: str) -> int:
    [found] = [q for q in agent.qps() if q["vqpn"] == shell.numbers[name]]
    return int(found["state"])


def receives(shell: Shell, agent: Agent, name: str) -> int:
    [found] = [q for q in agent.qps() if q["vqpn"] == shell.numbers[name]]
    return int(found["receives"])


def flushed(name: str, what: str, first: int, count: int) -> str:
    return " ".join(f"{name}:{what}:5:{i}" for i in range(first, first + count))


def every(*parts: str) -> str:
    return " ".join(part for part in parts if part)


# --- the error state -------------------------------------------------------------------------------------


@pytest.mark.parametrize("polled", [True, False], ids=["polled", "unpolled"])
def test_failed_qp_moves_and_flushes_once(shell: Shell, agent: Agent, polled: bool) -> None:
    shell.connect("AB", "CD")
    shell.do("recv A 3", "recv D 2", "send C 1", "err A", "send A 2", "recv A 1")
    before = every(flushed("A", "recv", 0, 3), flushed("A", "send", 0, 2), flushed("A", "recv", 3, 1))
    expected = "C:send:0:0 " + before
    if polled:
        assert shell.poll(0) == expected
    move(agent, (1, 0))
    assert shell.state("A") == ERR
    assert shell.poll(0) == ("" if polled else expected)
    shell.do("send A 2", "recv A 2", "send C 1")
    assert shell.poll(0) == every(flushed("A", "send", 2, 2), flushed("A", "recv", 4, 2), "C:send:0:1")
    assert shell.poll(1) == "D:recv:0:0 D:recv:0:1"
    move(agent, (0, 1))
    assert shell.state("A") == ERR
    assert shell.poll(0) == ""


@pytest.mark.parametrize("when", ["quiesced", "parked"])
def test_qp_that_fails_or_is_used_in_the_middle_of_a_move_flushes_in_order(
    shell: Shell, agent: Agent, when: str
) -> None:
    shell.connect("AB", "CD")
    shell.do("recv A 2")
    if when == "parked":
        shell.do("err A")
    agent.quiesce()
    if when == "quiesced":
        shell.do("send A 1", "err A", "send A 1")
    agent.ask("PARK")
    shell.do("send A 2", "recv A 2")
    rebuild_and_resume(agent)
    sends = 4 if when == "quiesced" else 2
    seen = shell.poll(0).split()
    assert [one for one in seen if ":send:" in one] == flushed("A", "send", 0, sends).split()
    assert [one for one in seen if ":recv:" in one] == flushed("A", "recv", 0, 4).split()
    assert len(seen) == sends + 4
    assert shell.state("A") == ERR
    assert receives(shell, agent, "A") == 0 or listed_state(shell, agent, "A") == ERR


def test_failed_qp_begins_a_new_life_after_it_was_parked(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("recv A 2", "send A 1", "err A", "err B")
    shell.poll(0)
    shell.poll(1)
    agent.quiesce()
    agent.ask("PARK")
    agent.ask("UNDO")
    shell.do("reset A", "reset B")
    shell.join("A", "B")
    shell.join("B", "A")
    shell.do("recv B 2", "send A 2")
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1"
    assert shell.poll(0) == "A:send:0:0 A:send:0:1"
    move(agent, (0, 1))
    shell.do("recv B 1", "send A 1")
    assert shell.poll(1) == "B:recv:0:2"


def test_failure_that_nobody_was_told_of_is_seen(shell: Shell, agent: Agent) -> None:
    """The peer's refusal ends both ends; this one has nothing posted that could say so."""
    shell.connect("AB", "CD")
    shell.tell("region 0 1 local")
    shell.do("write A 0")
    assert shell.poll(0) == "A:send:10:0"
    assert shell.poll(1) == ""
    assert listed_state(shell, agent, "B") == ERR
    move(agent, (1, 0))
    assert shell.state("A") == shell.state("B") == ERR
    shell.do("recv D 1", "send C 1")
    assert shell.poll(1) == "D:recv:0:0"


def test_qp_that_fails_in_the_drain_does_not_stop_it(shell: Shell, agent: Agent) -> None:
    shell.connect("AB", "CD")
    shell.do("recv A 1", "send A 2")  # there is no receive: it is tried again and again
    agent.send("QUIESCE", {"timeout_ms": 1000 * PATIENT_S})
    shell.do("send A 1", "err A")
    agent.connection.settimeout(PATIENT_S)
    agent.answer()
    agent.ask("PARK")
    agent.ask("UNDO")
    seen = shell.poll(0).split()
    assert [one for one in seen if ":send:" in one] == flushed("A", "send", 0, 3).split()
    assert [one for one in seen if ":recv:" in one] == ["A:recv:5:0"]


def test_undone_move_leaves_a_failed_qp_as_it_was(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("recv A 2", "send A 1", "err A")
    agent.quiesce()
    agent.ask("PARK")
    agent.ask("UNDO")
    seen = sorted(shell.poll(0).split())
    assert seen == sorted(["A:send:5:0", "A:recv:5:0", "A:recv:5:1"])
    shell.do("send A 1", "recv A 1")
    assert shell.poll(0) == "A:send:5:1 A:recv:5:2"


def test_failed_qp_at_a_partner_is_no_part_of_the_move(shell: Shell, agent: Agent) -> None:
    shell.connect("AB", "CD")
    shell.do("err B")
    partner_move(agent, 0)
    shell.do("recv D 1", "send C 1", "send B 1")
    assert shell.poll(1) == "D:recv:0:0 B:send:5:0"
    assert not [q for q in agent.qps() if q["next_pqpn"]]


def test_qp_that_is_reset_after_it_has_failed_rests_with_the_others(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    agent.quiesce()
    shell.do("err A", "reset A", "reset B")
    shell.join("A", "B")
    shell.join("B", "A")
    shell.do("recv B 1", "send A 1")
    assert shell.poll(1) == ""
    agent.ask("UNDO")
    assert shell.poll(1) == "B:recv:0:0"


# --- the states before a connection is made --------------------------------------------------------------


@pytest.mark.parametrize("state", [RESET, INIT, RTR], ids=["RESET", "INIT", "RTR"])
def test_qp_that_is_not_ready_moves_as_it_is(shell: Shell, agent: Agent, state: int) -> None:
    shell.make(A=0, B=1)
    for word in ("init {0}", "rtr {0} {1}")[:state]:
        shell.do(word.format("A", "B"), word.format("B", "A"))
    if state != RESET:
        shell.do("recv A 2", "recv B 2")
    move(agent, (1, 0))
    assert shell.state("A") == state
    assert receives(shell, agent, "A") == (0 if state == RESET else 2)
    if state == RTR:
        shell.do("rts A", "rts B", "send A 2", "send B 2")
        assert shell.poll(1) == "B:recv:0:0 B:recv:0:1 B:send:0:0 B:send:0:1"


# --- SQD -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["moved", "partner", "undone"])
@pytest.mark.parametrize("when", ["before", "quiesced"])
def test_stopped_qp_moves_and_sends_when_it_is_let_go_on(
    shell: Shell, agent: Agent, way: str, when: str
) -> None:
    shell.connect("AB", "CD")
    shell.do("recv B 8", "recv D 8", "send A 1")
    if when == "before":
        shell.do("sqd A", "send A 2")
    if way == "partner":
        # The side of A stays, that of B moves.
        agent.ask("PREPARE", {"kind": 1, "context": 1})
    agent.quiesce()
    if when == "quiesced":
        shell.do("sqd A", "send A 2")
    agent.ask("PARK")
    shell.do("send A 1", "send C 1")
    if way == "undone":
        agent.ask("UNDO")
    else:
        devices = {1: 1, 2: 0} if way == "moved" else {2: 1}
        for context, device in devices.items():
            agent.ask("REBUILD", {"context": context, "device": f"fake{device}"}, [SAME_INDEX])
        places = {1: (GIDS[devices.get(1, 0)], MOVING), 2: (GIDS[devices[2]], PARTNER)}
        agent.connect_all(places)
        for context in devices:
            agent.give_keys(context, places[context][1])
        agent.resume()
    assert shell.state("A") == SQD
    assert shell.poll(1) == "B:recv:0:0 D:recv:0:0"
    assert shell.poll(0) == "A:send:0:0 C:send:0:0"
    shell.do("send A 1", "on A")
    assert shell.poll(1) == " ".join(f"B:recv:0:{i}" for i in range(1, 5))
    assert shell.poll(0) == " ".join(f"A:send:0:{i}" for i in range(1, 5))
    move(agent, (0, 1))  # whatever it has said on its way back to RTS
    shell.do("send A 1")
    assert shell.poll(1) == "B:recv:0:5"


def test_what_was_sent_before_a_stop_is_drained_although_it_did_not_begin(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("send A 3", "sqd A")  # the first one waits for a receive, the others for the first
    shell.do("recv B 6")
    move(agent, (1, 0))
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1 B:recv:0:2"
    assert shell.poll(0) == "A:send:0:0 A:send:0:1 A:send:0:2"
    assert shell.state("A") == SQD
    shell.do("on A", "send A 1")
    assert shell.poll(1) == "B:recv:0:3"


@pytest.mark.parametrize("goes_on", [False, True], ids=["stays", "goes on"])
def test_what_is_under_way_is_drained_although_it_is_stopped_in_the_drain(
    shell: Shell, agent: Agent, goes_on: bool
) -> None:
    shell.connect("AB")
    shell.do("send A 3")  # the first one waits for a receive, the others for the first
    agent.send("QUIESCE", {"timeout_ms": 1000 * PATIENT_S})
    while shell.tell("marker A") != POSTED:
        pass
    shell.do("sqd A", "send A 1", *(["on A", "sqd A"] if goes_on else []), "recv B 6")
    agent.connection.settimeout(PATIENT_S)
    agent.answer()
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1 B:recv:0:2"
    assert shell.state("A") == SQD
    agent.ask("UNDO")
    assert shell.poll(0) == "A:send:0:0 A:send:0:1 A:send:0:2"
    assert shell.state("A") == SQD
    shell.do("on A")
    assert shell.poll(1) == "B:recv:0:3"


def test_drain_of_a_stopped_qp_is_not_seen_by_what_is_changed_of_it(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("send A 1", "sqd A")  # it waits for a receive
    agent.send("QUIESCE", {"timeout_ms": 1000 * PATIENT_S})
    while shell.tell("marker A") != POSTED:
        pass
    shell.do("path A B", "recv B 2")
    agent.connection.settimeout(PATIENT_S)
    agent.answer()
    assert shell.state("A") == SQD
    shell.do("on+ A", "send A 1")
    agent.ask("UNDO")
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1"


def test_path_that_is_given_again_leads_to_where_the_peer_is_now(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("recv A 2")
    for device in (1, 0):
        partner_move(agent, device)
        shell.do("sqd B", "path B A", "on B", "send B 1")
        assert shell.poll(0) == f"A:recv:0:{1 - device}"


@pytest.mark.parametrize("end", ["err", "reset", "destroy"])
def test_what_was_sent_in_a_stop_ends_with_it(shell: Shell, agent: Agent, end: str) -> None:
    shell.connect("AB")
    shell.do("recv B 2", "sqd A", "send A 2", f"{end} A")
    assert shell.poll(0) == ("A:send:5:0 A:send:5:1" if end == "err" else "")
    assert shell.poll(1) == ""
    move(agent, (1, 0))
    assert shell.poll(0) == ""


def test_stop_that_is_refused_changes_nothing(shell: Shell) -> None:
    shell.connect("AB")
    shell.do("recv B 1", "fail modify_qp 1 22")
    assert shell.tell("sqd A") == "EINVAL"
    shell.do("send A 1")
    assert shell.poll(1) == "B:recv:0:0"


def test_stopped_qp_that_cannot_go_on_is_named_by_the_drain(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("send A 2", "sqd A")  # there is no receive
    with pytest.raises(GuestError, match="did not drain in time") as caught:
        agent.quiesce(timeout_ms=50)
    assert caught.value.qps == [shell.numbers["A"]]
    assert shell.state("A") == SQD
