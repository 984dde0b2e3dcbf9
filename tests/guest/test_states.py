"""Queue pairs whose state the application changes while they are moved, and what of their work waits then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guest_agent import MOVING, PARTNER, PATIENT_S, Agent, GuestError
from guest_moves import GIDS, SAME_INDEX, move
from guest_shell import ERR, RESET, RTS, Shell


class Partner:
    """An agent whose guest is at the other end of what moves: only some of its QPs take part."""

    def __init__(self, shell: Shell, agent: Agent) -> None:
        self.shell, self.agent = shell, agent

    def names(self, names: str) -> list[dict[str, int]]:
        return [{"context": self.shell.sides[n] + 1, "vqpn": self.shell.numbers[n]} for n in names]

    def quiesce(self, names: str, timeout_ms: int = 1000 * PATIENT_S) -> None:
        self.agent.ask("QUIESCE", {"kind": 2, "timeout_ms": timeout_ms}, self.names(names))

    def prepare(self, names: str) -> None:
        self.agent.ask("PREPARE", {"kind": 2}, self.names(names))

    def prepared(self) -> str:
        """Which QPs have a successor."""
        now = {q["vqpn"] for q in self.agent.qps() if q["next_pqpn"]}
        return "".join(sorted(name for name, number in self.shell.numbers.items() if number in now))

    def connect(self) -> None:
        self.agent.connect_all({1: (GIDS[0], MOVING), 2: (GIDS[1], PARTNER)})
        self.agent.give_keys(1, MOVING)
        self.agent.give_keys(2, PARTNER)


@pytest.fixture
def partner(shell: Shell, agent: Agent) -> Partner:
    return Partner(shell, agent)


def receives(shell: Shell, agent: Agent, name: str) -> int:
    [found] = [q for q in agent.qps() if q["vqpn"] == shell.numbers[name]]
    return int(found["receives"])


# --- a QP that changes its state while it is quiesced, or has a successor --------------------------------


def test_kept_sends_go_with_a_reset_and_not_to_the_next_peer(
    shell: Shell, agent: Agent, partner: Partner
) -> None:
    shell.connect("AB", "CD")
    partner.quiesce("A")
    shell.do("send A 3", "reset A")
    shell.make(E=1)
    shell.join("A", "E")
    shell.join("E", "A")
    shell.do("recv E 4", "recv B 4")
    agent.resume()
    assert shell.poll(1) == ""
    shell.do("send A 1")
    assert shell.poll(1) == "E:recv:0:0"
    assert shell.poll(0) == "A:send:0:0"


def test_qp_that_is_used_anew_at_a_waiting_partner_works_at_once(
    shell: Shell, agent: Agent, partner: Partner
) -> None:
    shell.connect("AB", "CD")
    partner.quiesce("AC")
    shell.do("reset A")
    shell.make(E=1)
    shell.join("A", "E")
    shell.join("E", "A")
    shell.do("recv E 1", "recv D 1", "send A 1", "send C 1")
    assert shell.poll(1) == "E:recv:0:0"  # and C, which is quiesced, has sent nothing
    agent.resume()
    assert shell.poll(1) == "D:recv:0:0"


@pytest.mark.parametrize("when", ["prepared", "quiesced", "connected"])
@pytest.mark.parametrize("change", ["reset", "err"])
def test_qp_that_is_closed_while_its_peer_moves_stays_closed(
    shell: Shell, agent: Agent, partner: Partner, change: str, when: str
) -> None:
    shell.connect("AB", "CD")
    steps: dict[str, Callable[[], None]] = {
        "prepared": lambda: partner.prepare("ABCD"),
        "quiesced": lambda: partner.quiesce("ABCD"),
        "connected": partner.connect,
    }
    for step, take in steps.items():
        take()
        if step == when:
            shell.do(f"{change} A")
    assert partner.prepared() == "BCD"
    agent.resume()
    assert shell.state("A") == {"reset": RESET, "err": ERR}[change]
    assert shell.state("C") == RTS
    shell.do("recv D 1", "send C 1")
    assert shell.poll(1) == "D:recv:0:0"
    assert int(shell.numbers["A"]) in {q["pqpn"] for q in agent.qps()}


def test_nothing_arrives_in_buffers_that_were_flushed(shell: Shell, agent: Agent, partner: Partner) -> None:
    shell.connect("AB")
    shell.do("recv A 2")
    partner.prepare("AB")
    partner.quiesce("AB")
    partner.connect()
    shell.do("send B 1", "err A")
    assert shell.poll(0) == "A:recv:5:0 A:recv:5:1"
    agent.resume()
    assert shell.poll(0) == ""


@pytest.mark.parametrize("scope", ["partner", "container"])
def test_kept_sends_are_flushed_in_their_order_by_an_error(
    shell: Shell, agent: Agent, partner: Partner, scope: str
) -> None:
    shell.connect("AB")
    if scope == "partner":
        partner.quiesce("A")
    else:
        agent.quiesce()
    shell.do("send A 2", "err A", "send A 1")
    assert shell.poll(0) == "A:send:5:0 A:send:5:1 A:send:5:2"
    agent.resume()
    assert shell.poll(0) == ""


def test_qp_that_was_used_anew_is_prepared_for_nobody(shell: Shell, agent: Agent, partner: Partner) -> None:
    shell.connect("AB", "CD")
    partner.quiesce("AC")
    shell.do("reset A")
    shell.join("A", "B")
    partner.prepare("AC")
    assert partner.prepared() == "C"
    agent.ask("UNDO")


def rebuild_with_new_faces(agent: Agent) -> None:
    """Both contexts on the other's device, each facing the other."""
    for context in (1, 2):
        agent.ask("REBUILD", {"context": context, "device": f"fake{2 - context}"}, [SAME_INDEX])
    agent.connect_all({1: (GIDS[1], MOVING), 2: (GIDS[0], PARTNER)})
    agent.give_keys(1, MOVING)
    agent.give_keys(2, PARTNER)


def test_qp_of_a_container_at_rest_stays_there_after_a_reset(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    agent.quiesce()
    shell.do("send A 2", "reset A", "reset B")
    shell.join("A", "B")
    shell.join("B", "A")
    shell.do("recv B 4", "send A 1")
    assert shell.poll(1) == ""
    agent.ask("PARK")
    rebuild_with_new_faces(agent)
    agent.resume()
    assert shell.poll(1) == "B:recv:0:0"
    assert shell.poll(0) == "A:send:0:0"


# --- what has completed and was not polled ---------------------------------------------------------------


@pytest.mark.parametrize("purge", [0, 1])
@pytest.mark.parametrize("collected", [False, True])
def test_receives_after_a_reset_are_counted_whatever_has_not_been_polled(
    shell: Shell, agent: Agent, purge: int, collected: bool
) -> None:
    shell.do(f"purge {purge}")
    shell.connect("AB")
    shell.do("recv B 6", "send A 3")
    if collected:  # the guest library has taken them before the application does
        agent.quiesce()
        agent.resume()
    shell.do("reset A", "reset B")
    shell.join("A", "B")
    shell.join("B", "A")
    shell.do("recv B 5")
    assert shell.poll(1) == ("" if purge else "B:recv:0:0 B:recv:0:1 B:recv:0:2")
    assert receives(shell, agent, "B") == 5
    move(agent, (1, 0))
    assert receives(shell, agent, "B") == 5
    shell.poll(0)
    shell.do("send A 5")
    assert shell.poll(1) == " ".join(f"B:recv:0:{i}" for i in range(5))
    assert shell.poll(0) == " ".join(f"A:send:0:{i}" for i in range(5))


@pytest.mark.parametrize("purge", [0, 1])
def test_receives_of_a_qp_that_has_ended_are_not_counted_for_the_next_of_its_number(
    shell: Shell, agent: Agent, purge: int
) -> None:
    shell.do(f"purge {purge}")
    shell.connect("AB")
    shell.do("recv B 6", "send A 3", "destroy B", "destroy A")
    shell.do(f"numbers 0 {shell.numbers['A']} 0", f"numbers 1 {shell.numbers['B']} 0")
    before = shell.numbers.copy()
    shell.connect("AB")
    assert shell.numbers == before
    shell.do("recv B 5")
    assert shell.poll(1) == ("" if purge else "B:recv:0:0 B:recv:0:1 B:recv:0:2")
    assert receives(shell, agent, "B") == 5


@pytest.mark.parametrize("purge", [0, 1])
@pytest.mark.parametrize("end", ["destroy", "reset"])
def test_marker_of_an_undone_quiesce_is_not_seen_after_its_qp(
    shell: Shell, agent: Agent, end: str, purge: int
) -> None:
    shell.do(f"purge {purge}")
    shell.connect("AB")
    shell.do("send A 2")  # there is no receive yet
    with pytest.raises(GuestError, match="did not drain in time"):
        agent.quiesce(timeout_ms=20)
    shell.do("recv B 2", f"{end} A")
    assert shell.poll(0) == ("" if purge else "A:send:0:0 A:send:0:1")
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1"


@pytest.mark.parametrize("purge", [0, 1])
@pytest.mark.parametrize("end", ["destroy", "reset"])
@pytest.mark.parametrize("moved", [False, True])
def test_completions_that_were_taken_early_go_with_their_qp_as_in_the_device(
    shell: Shell, agent: Agent, end: str, purge: int, moved: bool
) -> None:
    shell.do(f"purge {purge}")
    shell.connect("AB", "CD")
    if moved:
        move(agent, (1, 0))
    shell.do("recv B 2", "recv D 2", "send A 1", "send C 1", "send A 1", "send C 1")
    agent.quiesce()
    shell.do(f"{end} A")
    made = int(shell.tell("made qps"))
    agent.resume()
    seen = "C:send:0:0 C:send:0:1" if purge else "A:send:0:0 C:send:0:0 A:send:0:1 C:send:0:1"
    assert shell.poll(0) == seen
    assert int(shell.tell("made qps")) == made == (3 if end == "destroy" else 4)
    shell.do("send C 0")


# --- keys ------------------------------------------------------------------------------------------------


def test_key_that_has_ever_differed_is_never_given_to_another_region(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    key = int(shell.tell("region 0 0"))
    shell.do("write B 0")
    assert shell.tell("show 0") == "4711"
    move(agent, (1, 0))
    shell.do("free 0")
    shell.do(f"numbers 1 0 {key - 16}", f"numbers 1 0 {key & ~0xFF}")
    for place in range(1, 9):  # the device comes by that number again
        assert int(shell.tell(f"region {place} 0")) != key
        shell.do(f"write B {place}")
        assert shell.tell(f"show {place}") == "4711"
    move(agent, (1, 0))
    for place in range(1, 9):
        shell.do(f"free {place}", f"numbers 1 0 {key & ~0xFF}")
        assert int(shell.tell(f"region {place} 0")) != key


def test_keys_of_a_former_peer_are_not_those_of_the_next(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    key = int(shell.tell("region 0 0"))
    move(agent, (0, 1))
    shell.do("reset B", f"numbers 1 0 {key & ~0xFF}")
    shell.make(E=1)
    shell.join("B", "E")
    shell.join("E", "B")
    same = [place for place in range(1, 9) if int(shell.tell(f"region {place} 1")) == key]
    assert same, "the device did not come by that number"
    shell.do(f"write B {same[0]}")
    assert shell.tell(f"show {same[0]}") == "4711"


# --- connections that are being made ---------------------------------------------------------------------


@pytest.mark.parametrize("ready", ["A", "B", ""], ids=["this end", "the other end", "neither"])
@pytest.mark.parametrize("way", ["rebuilt", "switched", "while quiesced", "while it is connected"])
@pytest.mark.parametrize("rts", ["rts", "rts+"])
def test_connection_that_is_half_made_is_finished_after_the_move(
    shell: Shell, agent: Agent, partner: Partner, ready: str, way: str, rts: str
) -> None:
    shell.make(A=0, B=1)
    for one, other in (("A", "B"), ("B", "A")):
        shell.do(f"init {one}", f"recv {one} 3", f"rtr {one} {other}")
    if ready:
        shell.do(f"{rts} {ready}", f"send {ready} 1")
    finish = [f"{rts} {end}" for end in "AB" if end != ready]
    if way == "rebuilt":
        move(agent, (1, 0))
    else:
        partner.prepare("AB")
        partner.quiesce("AB")
        if way == "while quiesced":
            shell.do(*finish)
        partner.connect()
        if way == "while it is connected":
            shell.do(*finish)
        agent.resume()
    if not way.startswith("while"):
        shell.do(*finish)
    shell.do("send A 1", "send B 1")
    sent = {end: 2 if end == ready else 1 for end in "AB"}
    for side, (end, other) in enumerate((("A", "B"), ("B", "A"))):
        received = [f"{end}:recv:0:{i}" for i in range(sent[other])]
        assert sorted(shell.poll(side).split()) == received + [f"{end}:send:0:{i}" for i in range(sent[end])]
    move(agent, (0, 1))  # from what was finished late, too
    shell.do("send A 1")
    assert shell.poll(1).startswith("B:recv:0:")


# --- posting and draining --------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["partner", "container"])
def test_drain_does_not_wait_for_a_qp_that_was_reset(
    shell: Shell, agent: Agent, partner: Partner, scope: str
) -> None:
    shell.connect("AB")
    shell.do("send A 1")  # there is no receive
    if scope == "partner":
        agent.send("QUIESCE", {"kind": 2, "timeout_ms": 1000 * PATIENT_S}, partner.names("A"))
    else:
        agent.send("QUIESCE", {"timeout_ms": 1000 * PATIENT_S})
    shell.do("reset A")
    agent.connection.settimeout(PATIENT_S)
    agent.answer()
    agent.resume()
    assert shell.poll(0) == ""


def test_posting_is_refused_while_quiesced_as_the_device_would(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    agent.quiesce()
    shell.make(E=0)
    assert shell.tell("send E 1") == "EINVAL"
    shell.do("init E")
    assert shell.tell("send E 1") == "EINVAL"
    shell.do("rtr E B")
    assert shell.tell("send E 1") == "EINVAL"
    shell.do("rts E", "send E 1", "send A 1")
    agent.resume()


@pytest.mark.parametrize("fails", [0, 1], ids=["while posting", "also in the error state"])
def test_kept_send_that_is_refused_stops_those_behind_it(shell: Shell, agent: Agent, fails: int) -> None:
    shell.connect("AB")
    shell.do("recv B 4", "arm 1")
    agent.quiesce()
    shell.do("send A 1", "refused A", "send A 2", "arm 0")
    if fails:
        shell.do("fail post_send 3 22")
    agent.resume()
    assert shell.poll(0) == "A:send:0:0 A:send:5:1 A:send:5:2 A:send:5:3"
    assert shell.poll(1) == "B:recv:0:0"
    assert shell.state("A") == ERR


@pytest.mark.parametrize("fails", [0, 1], ids=["while posting", "also in the error state"])
def test_kept_send_that_is_refused_wakes_whoever_waits_for_it(shell: Shell, agent: Agent, fails: int) -> None:
    shell.connect("AB")
    agent.quiesce()
    shell.do("refused A", "arm 0")
    if fails:
        shell.do("fail post_send 2 22")
    agent.resume()
    assert shell.tell("event 0") == "1"
    assert shell.poll(0) == "A:send:5:0"


@pytest.mark.parametrize("way", ["rebuilt", "switched"])
def test_resume_that_failed_halfway_is_repeated(
    shell: Shell, agent: Agent, partner: Partner, way: str
) -> None:
    shell.connect("AB", "CD")
    shell.do("recv B 3", "recv D 3")
    if way == "rebuilt":
        agent.quiesce()
        agent.ask("PARK")
        rebuild_with_new_faces(agent)
        shell.do("recv D 3")  # of which the new queue learns at RESUME
        shell.do("fail post_recv 2 12")
    else:
        partner.prepare("ABCD")
        partner.quiesce("ABCD")
        partner.connect()
        shell.do("fail post_recv 5 12")
    with pytest.raises(GuestError, match="resuming"):
        agent.resume()
    agent.resume()
    shell.do("arm 1", "send C 3", "send A 3")
    assert shell.tell("event 1") == "1"
    assert shell.poll(1) == "D:recv:0:0 D:recv:0:1 D:recv:0:2 B:recv:0:0 B:recv:0:1 B:recv:0:2"
    assert receives(shell, agent, "D") == (3 if way == "rebuilt" else 0)
    move(agent, (0, 1))
    assert receives(shell, agent, "D") == (3 if way == "rebuilt" else 0)


def test_resume_that_failed_halfway_can_be_undone(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("recv B 1")
    agent.quiesce()
    agent.ask("PARK")
    for context in (1, 2):
        agent.ask("REBUILD", {"context": context, "device": f"fake{2 - context}"}, [SAME_INDEX])
    agent.connect_all({1: (GIDS[1], MOVING), 2: (GIDS[0], PARTNER)})
    shell.do("recv A 1", "fail post_recv 1 12")
    with pytest.raises(GuestError, match="resuming"):
        agent.resume()
    agent.ask("UNDO")
    shell.do("arm 1", "send A 1")
    assert shell.tell("event 1") == "1"
    assert shell.poll(1) == "B:recv:0:0"
    sq_drained = 5
    shell.do(f"raise {shell.numbers['A']} {sq_drained}")
    assert shell.tell("async 0") == str(sq_drained)


@pytest.mark.parametrize("threads", [4, 20])
def test_queue_that_one_thread_uses_alone_is_fast_again_after_any_number_of_owners(
    shell: Shell, agent: Agent, threads: int
) -> None:
    shell.connect("AB")
    shell.do(f"recv B {threads} threads")
    assert shell.tell("fast recv B") == "1"
    shell.tell(f"poll 0 {threads}")
    assert shell.tell("fast 0") == "1"
    agent.quiesce()
    agent.resume()
    assert shell.tell("fast 0") == "1"
