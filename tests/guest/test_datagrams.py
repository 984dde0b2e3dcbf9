"""UD queue pairs and address handles through moves: each names the other by what it was told at first, for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from datagram_moves import BLIND, FORMER, OWN, PEER, addresses, move
from guest_agent import Agent, Program
from guest_build import Built, compile_c
from guest_moves import GIDS


class Talk(Program):
    """``datagrams.c``."""

    def do(self, *commands: str) -> None:
        for command in commands:
            answer = self.tell(command)
            assert answer == "ok", f"{command}: {answer}"

    def poll(self, side: int) -> list[str]:
        *completions, end = self.tell(f"poll {side}").split()
        assert end == "ok"
        return completions

    def hears(self, side: int, *words: str) -> None:
        """What has arrived there since, from whom, and nothing else."""
        heard = [one for one in self.poll(side) if one != "sent:0"]
        assert heard == list(words), self.diagnosis()

    def both_ways(self, turn: str) -> None:
        """Each hears the other, and the answer to what it says."""
        self.do("post 0 2", "post 1 2", f"send 0 a{turn}", f"send 1 b{turn}")
        self.hears(1, f"a{turn}:other:mine")
        self.hears(0, f"b{turn}:other:mine")
        self.do(f"reply 1 c{turn}", f"reply 0 d{turn}")
        self.hears(0, f"c{turn}:other:mine")
        self.hears(1, f"d{turn}:other:mine")


@pytest.fixture(scope="session")
def datagrams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("datagrams") / "datagrams"
    compile_c(program, Path(__file__).with_name("datagrams.c"), "-libverbs")
    return program


@pytest.fixture
def variant() -> str:
    return "plain"


@pytest.fixture(params=["classic", "built"])
def sends(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def talk(
    datagrams: Path, builds: Callable[[str], Built], variant: str, sends: str, agent: Agent, tmp_path: Path
) -> Iterator[Talk]:
    environment = {**builds(variant).environment, **agent.environment}
    # Posting executes: what a command has posted has completed when it answers.
    del environment["FAKE_ASYNC"]
    talk = Talk([datagrams], environment, tmp_path / "log")
    with talk:
        agent.diagnosis = talk.diagnosis
        agent.accept()
        if sends == "built":
            talk.do("built 0", "built 1")
        yield talk


@pytest.mark.parametrize("variant", ["plain", "address", "thread"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_both_hear_each_other_move_after_move(talk: Talk, agent: Agent, shared: bool) -> None:
    if shared:
        talk.do("shared 0", "shared 1")
    talk.both_ways("first")
    assert not agent.ask("INVENTORY").records
    for turn in range(4):
        talk.do(f"numbers {1 - turn % 2} {0x500 + 16 * turn}")
        move(agent, {1: 1 - turn % 2})
        talk.both_ways(str(turn))
    for turn in range(2):
        move(agent, {2: turn % 2})
        talk.both_ways(f"then{turn}")
    talk.do("end")


@pytest.mark.parametrize("variant", ["plain", "address"])
def test_both_are_restored(talk: Talk, agent: Agent) -> None:
    talk.both_ways("first")
    for turn in range(3):
        talk.do("post 0 1", "post 1 1")
        move(agent, {1: 1 - turn % 2, 2: turn % 2}, restored=talk)
        talk.do(f"send 0 e{turn}", f"send 1 f{turn}")
        talk.hears(1, f"e{turn}:other:mine")
        talk.hears(0, f"f{turn}:other:mine")
        talk.both_ways(str(turn))
        talk.do("post 0 1", "send 0 self again")
        talk.hears(0, "again:mine:mine")
    talk.do("end")


def undone(_talk: Talk, agent: Agent) -> None:
    agent.quiesce()
    agent.ask("PARK")
    agent.ask("UNDO")


def moved(talk: Talk, agent: Agent) -> None:
    talk.do("numbers 1 0x600")
    move(agent, {1: 1})


def restored(talk: Talk, agent: Agent) -> None:
    talk.do("numbers 1 0x600")
    move(agent, {1: 1, 2: 0}, restored=talk)


Way = Callable[[Talk, Agent], None]
WAYS: list[Way] = [undone, moved, restored]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@ways
def test_nothing_that_was_there_is_lost_or_doubled(talk: Talk, agent: Agent, way: Way) -> None:
    """What has arrived and what has been sent is told once, and receives that are left take what comes later."""
    talk.do("post 0 3", "post 1 2", "send 0 one", "send 1 two")
    way(talk, agent)
    assert talk.poll(0) == ["sent:0", "two:other:mine"]
    assert talk.poll(1) == ["one:other:mine", "sent:0"]
    talk.do("send 1 three", "send 0 four", "send 1 five", "send 1 none")
    talk.hears(0, "three:other:mine", "five:other:mine")
    talk.hears(1, "four:other:mine")
    assert {qp["receives"] for qp in agent.qps()} == {0}


@ways
def test_what_is_sent_at_rest_arrives_afterwards(talk: Talk, agent: Agent, way: Way) -> None:
    """Also if its handle has been ended, which a device does not need any more once a send is posted."""
    talk.do("post 0 1", "post 1 1")
    agent.quiesce()
    talk.do("send 0 one", "handle 0", "send 1 two")
    assert talk.poll(0) == talk.poll(1) == []
    way(talk, agent)
    talk.hears(0, "two:other:mine")
    talk.hears(1, "one:other:mine")
    talk.do("end")


@ways
def test_keys_stay_what_they_are(talk: Talk, agent: Agent, way: Way) -> None:
    talk.do("post 1 1")
    way(talk, agent)
    talk.do("send 0 wrong")
    talk.hears(1)
    talk.do("send 0 right")
    talk.hears(1, "right:other:mine")


@ways
def test_handles_are_made_and_ended_as_ever(talk: Talk, agent: Agent, way: Way) -> None:
    """Also for whom the application knows by where it was before a move."""
    for turn in range(2):
        talk.do("handle 0", "handle 1")
        talk.both_ways(str(turn))
        way(talk, agent)
    talk.do("handle 0", "handle 1")
    talk.both_ways("last")
    talk.do("end")


@ways
def test_groups_are_joined_again_and_left(talk: Talk, agent: Agent, way: Way) -> None:
    talk.do("join 0", "join 1", "join 1")
    assert not agent.ask("INVENTORY").records
    way(talk, agent)
    talk.do("post 0 4", "post 1 4", "shout 0 one", "shout 1 two")
    talk.hears(0, "two:group")
    talk.hears(1, "one:group")
    talk.do("leave 1")
    way(talk, agent)
    talk.do("shout 0 three", "shout 1 four")
    talk.hears(0, "four:group")
    talk.hears(1)


@ways
def test_sends_that_have_failed_alone_are_flushed_until_it_goes_on(
    talk: Talk, agent: Agent, way: Way
) -> None:
    talk.do("failing 0", "post 0 2")
    [failed] = talk.poll(0)
    assert failed != "sent:0"
    way(talk, agent)
    talk.do("send 0 away", "send 1 one")
    assert sorted(talk.poll(0)) == ["one:other:mine", "sent:5"]
    talk.do("go_on 0")
    way(talk, agent)
    talk.both_ways("last")


@ways
def test_stopped_queue_is_stopped_until_it_goes_on(talk: Talk, agent: Agent, way: Way) -> None:
    talk.do("post 0 1", "post 1 1", "stop 0")
    way(talk, agent)
    talk.do("send 0 one", "send 1 two")
    talk.hears(1)
    talk.hears(0, "two:other:mine")
    talk.do("go_on 0")
    talk.hears(1, "one:other:mine")


def test_partner_goes_by_what_it_has_been_told_only_if_the_move_is(talk: Talk, agent: Agent) -> None:
    """No queue pair of its own takes part; it goes on all the while, and forwards by itself if its agent is gone."""
    [one, two] = sorted(agent.qps(), key=lambda qp: qp["context"])
    place = {
        "vqpn": one["vqpn"],
        "qpn": one["pqpn"],
        "new_qpn": two["pqpn"],
        "vgid": GIDS[0],
        "gid": GIDS[0],
        "new_gid": GIDS[1],
    }
    talk.do("post 0 2", "post 1 2")
    for step in ("UNDO", "RESUME"):
        agent.ask("QUIESCE", {"kind": 2, "timeout_ms": 5000, "alone_s": 1000})
        agent.ask("PLACES", {}, [place])
        talk.do("send 1 before")
        talk.hears(0, "before:other:mine")
        agent.ask(step)
    talk.do("send 1 myself")
    talk.hears(0)
    assert any(one.startswith("myself:") for one in talk.poll(1))


@pytest.mark.parametrize("sends", ["built"])
@pytest.mark.parametrize("variant", ["plain", "address", "thread"])
def test_partner_builds_while_it_is_told(talk: Talk, agent: Agent) -> None:
    """What it has begun before goes to where its addressee is when it is named."""
    talk.do("numbers 1 0x600")
    move(agent, {1: 1})
    [one] = [qp for qp in agent.qps() if qp["context"] == 1]
    [two] = [qp for qp in agent.qps() if qp["context"] == 2]
    place = {
        "vqpn": one["vqpn"],
        "qpn": one["pqpn"],
        "new_qpn": two["pqpn"],
        "vgid": GIDS[0],
        "gid": GIDS[1],
        "new_gid": GIDS[1],
    }
    talk.do("post 1 1", "begin 1")
    agent.ask("QUIESCE", {"kind": 2, "timeout_ms": 5000, "alone_s": 1000})
    agent.ask("PLACES", {}, [place])
    agent.resume()
    talk.do("finish 1 two")
    assert any(one.startswith("two:") for one in talk.poll(1))


@pytest.mark.parametrize("sends", ["built"])
@ways
def test_what_is_begun_at_rest_goes_to_where_its_addressee_is_then(
    talk: Talk, agent: Agent, way: Way
) -> None:
    talk.do("post 0 1", "stop 1", "begin 1")
    way(talk, agent)
    talk.do("finish 1 one")
    talk.hears(0)
    talk.do("go_on 1")
    talk.hears(0, "one:other:mine")


def test_addresses_are_where_they_are_known_to_be(talk: Talk, agent: Agent) -> None:
    def listed() -> set[tuple[int, int, bytes, bytes]]:
        # What it has asked for, and goes on using, is in the list as well (MIG_ADDRESS_KNOWN, _TOLD).
        return {
            (one["context"], one["kind"], one["vgid"], one["gid"])
            for one in addresses(agent)
            if one["kind"] in (OWN, PEER, FORMER)
        }

    first, second = GIDS
    both = {(1, OWN, first, first), (2, OWN, second, second)}
    peers = {
        (1, PEER, second, second),
        (1, PEER, first, first),
        (2, PEER, first, first),
        (2, PEER, second, second),
    }
    assert listed() == both | peers
    talk.do("numbers 1 0x600")
    move(agent, {1: 1})
    assert listed() == {
        (1, OWN, first, second),
        (2, OWN, second, second),
        *((context, kind, first, gid) for context in (1, 2) for kind, gid in ((PEER, second), (FORMER, first))),
        *((context, PEER, second, second) for context in (1, 2)),
    }  # fmt: skip


def test_word_on_a_name_that_is_somewhere_else_already_is_not_believed(talk: Talk, agent: Agent) -> None:
    """A name that has moved is redirected by whoever it is at, and one that has not by whom it names."""
    [one, two] = sorted(agent.qps(), key=lambda qp: qp["context"])
    lie = {
        "vqpn": one["vqpn"],
        "vgid": GIDS[0],
        "qpn": 0x999,
        "gid": GIDS[1],
        "new_qpn": two["pqpn"],
        "new_gid": GIDS[1],
    }
    agent.ask("PLACES", {}, [lie])
    agent.resume()
    talk.both_ways("first")
    talk.do("numbers 1 0x600")
    move(agent, {1: 1})
    agent.ask("PLACES", {}, [lie])
    agent.resume()
    talk.both_ways("last")


def test_memory_with_other_addresses_is_a_reason(talk: Talk, agent: Agent) -> None:
    assert BLIND not in {one["kind"] for one in addresses(agent)}
    talk.do("region 0")
    assert {one["context"] for one in addresses(agent) if one["kind"] == BLIND} == {1}


@pytest.mark.parametrize("variant", ["plain", "address"])
def test_handle_may_end_while_a_stopped_queue_has_not_sent_by_it(talk: Talk) -> None:
    talk.do("post 1 1", "stop 0", "send 0 one", "handle 0", "go_on 0")
    talk.hears(1, "one:other:mine")
    talk.do("end")


@pytest.mark.parametrize("variant", ["address"])
@ways
def test_handle_ended_while_stopped_and_moved(talk: Talk, agent: Agent, way: Way) -> None:
    talk.do("post 1 2", "stop 0")
    way(talk, agent)
    talk.do("send 0 one", "handle 0")
    way(talk, agent)
    talk.do("handle 0", "go_on 0", "send 0 two")
    talk.hears(1, "one:other:mine", "two:other:mine")
    talk.do("end")


@ways
def test_failed_one_is_still_in_its_group(talk: Talk, agent: Agent, way: Way) -> None:
    talk.do("join 0", "join 1", "fail 1")
    way(talk, agent)
    talk.do("again 1", "post 1 1", "shout 0 one")
    talk.hears(1, "one:group")
    talk.do("leave 1")


@ways
def test_failed_one_stays_in_group_without_reset_can_leave(talk: Talk, agent: Agent, way: Way) -> None:
    talk.do("join 1", "fail 1")
    way(talk, agent)
    talk.do("leave 1")


@ways
def test_reset_and_again(talk: Talk, agent: Agent, way: Way) -> None:
    talk.do("post 0 2", "post 1 2", "fail 1", "again 1")
    way(talk, agent)
    talk.poll(1)
    talk.both_ways("x")
    talk.do("fail 1")
    way(talk, agent)
    talk.poll(1)
    talk.do("again 1")
    talk.both_ways("y")
    talk.do("end")


@pytest.mark.parametrize("variant", ["plain", "address"])
def test_domain_ends_while_a_handle_of_another_one_is_needed(talk: Talk, agent: Agent) -> None:
    talk.do("post 1 1")
    agent.quiesce()
    talk.do("send 0 one", "handle 0", "spare 0")
    agent.ask("UNDO")
    talk.hears(1, "one:other:mine")
    talk.do("end")


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_what_came_before_its_sender_moved_on_is_from_whom_it_was(
    talk: Talk, agent: Agent, shared: bool
) -> None:
    """It waits at a partner, which does not rest, and is polled when the place it came from is nobody's."""
    if shared:
        talk.do("shared 1")
    talk.both_ways("first")
    talk.do("numbers 1 0x600")
    move(agent, {1: 1})
    talk.do("post 1 2", "send 0 one")
    [one] = [qp for qp in agent.qps() if qp["context"] == 1]
    place = {
        "vqpn": one["vqpn"],
        "qpn": one["pqpn"],
        "new_qpn": 0x777,
        "vgid": GIDS[0],
        "gid": GIDS[1],
        "new_gid": GIDS[0],
    }
    agent.ask("QUIESCE", {"kind": 2, "timeout_ms": 5000, "alone_s": 1000})
    agent.ask("PLACES", {}, [place])
    agent.resume()
    talk.hears(1, "one:other:mine")
