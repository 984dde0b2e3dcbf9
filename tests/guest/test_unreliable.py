"""UC queue pairs through moves: what was sent arrives once or, as the transport promises, not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guest_agent import MOVING, PARTNER, PATIENT_S, Agent
from guest_moves import GIDS, move, partner_move, switch
from guest_shell import ERR, RTS, Shell

SQE = 5


@pytest.fixture
def unreliable(shell: Shell) -> Shell:
    shell.do("type uc")
    return shell


def quiesce_and_undo(agent: Agent) -> None:
    agent.quiesce()
    agent.ask("UNDO")


WAYS: dict[str, Callable[[Agent], None]] = {
    "moved": lambda agent: move(agent, (1, 0)),
    "partner": lambda agent: partner_move(agent, 0),
    "switched": switch,
    "undone": quiesce_and_undo,
}


@pytest.mark.parametrize("way", WAYS)
def test_messages_and_receives_survive(unreliable: Shell, agent: Agent, way: str) -> None:
    shell = unreliable
    shell.connect("AB")
    shell.do("recv B 5", "recv A 3", "send A 2", "send B 1")
    WAYS[way](agent)
    assert {qp["receives"] for qp in agent.qps()} == {3, 2}
    shell.do("send A 2", "send B 1")
    assert sorted(shell.poll(1).split()) == [
        *(f"B:recv:0:{i}" for i in range(4)),
        *(f"B:send:0:{i}" for i in range(2)),
    ]
    assert sorted(shell.poll(0).split()) == [
        *(f"A:recv:0:{i}" for i in range(2)),
        *(f"A:send:0:{i}" for i in range(4)),
    ]
    assert {qp["receives"] for qp in agent.qps()} == {1}


@pytest.mark.parametrize("way", WAYS)
def test_keys_are_translated(unreliable: Shell, agent: Agent, way: str) -> None:
    shell = unreliable
    shell.connect("AB")
    shell.tell("region 0 1")
    WAYS[way](agent)
    shell.do("write A 0")
    assert shell.poll(0) == "A:send:0:0"
    assert shell.tell("show 0") == "4711"


@pytest.mark.parametrize("way", WAYS)
def test_what_is_lost_is_not_waited_for_and_not_repeated(unreliable: Shell, agent: Agent, way: str) -> None:
    shell = unreliable
    shell.connect("AB")
    shell.do("send A 2")  # nobody receives it
    WAYS[way](agent)
    assert shell.poll(0) == "A:send:0:0 A:send:0:1"
    shell.do("recv B 2", "send A 1")
    assert shell.poll(1) == "B:recv:0:0"
    assert shell.poll(0) == "A:send:0:2"


@pytest.mark.parametrize("way", WAYS)
def test_sends_that_have_failed_alone_are_flushed_after_the_move_too(
    unreliable: Shell, agent: Agent, way: str
) -> None:
    shell = unreliable
    shell.connect("AB")
    shell.do("recv A 2", "recv B 2", "spoilt A", "send A 1")
    seen = shell.poll(0)
    assert seen.split()[1] == "A:send:5:1"
    assert shell.state("A") == SQE
    WAYS[way](agent)
    shell.do("send A 1", "send B 1")
    assert sorted(shell.poll(0).split()) == ["A:recv:0:0", "A:send:5:2"]
    assert shell.state("A") == SQE
    shell.do("on A", "send A 1")
    assert shell.state("A") == RTS
    assert shell.poll(0) == "A:send:0:3"
    assert "B:recv:0:0" in shell.poll(1)


@pytest.mark.parametrize("way", WAYS)
def test_failed_one_stays_so(unreliable: Shell, agent: Agent, way: str) -> None:
    shell = unreliable
    shell.connect("AB", "CD")
    shell.do("recv A 1", "err A")
    WAYS[way](agent)
    assert shell.state("A") == ERR
    shell.do("send A 1")
    assert sorted(shell.poll(0).split()) == ["A:recv:5:0", "A:send:5:0"]
    shell.do("recv D 1", "send C 1")
    assert shell.poll(1) == "D:recv:0:0"


def test_what_comes_to_the_old_place_takes_its_receive_once_or_is_lost(
    unreliable: Shell, agent: Agent
) -> None:
    """Nobody can know that the peer's last message has arrived: it comes while the successor waits, or after that."""
    shell = unreliable
    shell.connect("AB")
    shell.do("recv B 2")
    agent.ask("PREPARE", {"kind": 1, "context": 2})
    agent.ask("QUIESCE", {"kind": 1, "context": 2, "timeout_ms": 1000 * PATIENT_S})
    agent.connect_all({1: (GIDS[0], MOVING), 2: (GIDS[1], PARTNER)})
    agent.give_keys(1, MOVING)
    shell.do("send A 1")
    agent.resume()
    assert shell.poll(1) == "B:recv:0:0"
    [here] = [qp for qp in agent.qps() if qp["context"] == 2]
    assert here["receives"] == 1
    shell.do("send A 1")
    assert shell.poll(0) == "A:send:0:0 A:send:0:1"
    assert shell.poll(1) == ""
