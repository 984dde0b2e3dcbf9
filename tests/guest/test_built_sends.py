"""Sends that are posted by ``ibv_wr_*``: before moves, while they are kept, and after, all of a list or none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guest_agent import PATIENT_S, Agent, GuestError
from guest_moves import move, partner_move, switch
from guest_shell import Shell

_DEPTH = 24
_REGION, _WINDOW = 0, 0

WAYS: dict[str, Callable[[Agent], None]] = {
    "moved": lambda agent: move(agent, (1, 0)),
    "partner": lambda agent: partner_move(agent, 0),
    "switched": switch,
}


@pytest.fixture
def built(shell: Shell) -> Shell:
    shell.do("built 1")
    return shell


@pytest.mark.parametrize("kind", ["rc", "uc"])
@pytest.mark.parametrize("way", WAYS)
def test_sends_and_writes_go_on(built: Shell, agent: Agent, way: str, kind: str) -> None:
    shell = built
    shell.do(f"type {kind}")
    shell.connect("AB")
    shell.tell(f"region {_REGION} 1")
    assert agent.ask("INVENTORY").body["migratable"]
    shell.do("recv B 9", "sends A 3")
    WAYS[way](agent)
    for _ in range(2):
        shell.do("sends A 2", f"write A {_REGION}")
        assert shell.tell(f"show {_REGION}") == "4711"
    assert shell.poll(0).split() == [f"A:send:0:{number}" for number in range(9)]
    assert shell.poll(1).split() == [f"B:recv:0:{number}" for number in range(7)]


def test_what_is_built_at_rest_is_kept_together_or_refused_together(built: Shell, agent: Agent) -> None:
    shell = built
    shell.connect("AB")
    shell.do(f"recv B {_DEPTH}")
    agent.quiesce()
    shell.do(f"sends A {_DEPTH - 2}")
    assert shell.tell("sends A 3") == "ENOMEM"
    shell.do("sends A 2", "begin A", "drop A")
    assert shell.poll(1) == ""
    agent.ask("UNDO")
    assert shell.poll(1).split() == [f"B:recv:0:{number}" for number in range(_DEPTH)]
    assert shell.poll(0).split() == [f"A:send:0:{number}" for number in range(_DEPTH)]


def test_a_drain_waits_for_what_is_being_built(built: Shell, agent: Agent) -> None:
    shell = built
    shell.connect("AB")
    shell.do("recv B 3", "begin A")
    with pytest.raises(GuestError, match="did not drain"):
        agent.ask("QUIESCE", {"timeout_ms": 300})
    shell.do("end A")
    assert shell.poll(1) == "B:recv:0:0"
    shell.do("begin A", "drop A")
    switch(agent)
    shell.do("send A 1")
    assert shell.poll(1) == "B:recv:0:1"


def test_what_was_begun_at_rest_may_end_after_the_move(built: Shell, agent: Agent) -> None:
    shell = built
    shell.connect("AB", "CD")
    shell.do("recv B 2", "recv D 1")
    agent.quiesce()
    shell.do("begin A", "begin C")
    agent.ask("UNDO")
    shell.do("end A", "drop C", "send A 1", "send C 1")
    assert sorted(shell.poll(1).split()) == ["B:recv:0:0", "B:recv:0:1", "D:recv:0:0"]


def test_windows_are_bound_and_followed(built: Shell, agent: Agent) -> None:
    shell = built
    shell.connect("AB")
    shell.do("recv B 2")
    shell.tell(f"region {_REGION} 0 0 local windows")
    shell.tell(f"window {_WINDOW} 0 2")
    shell.do(f"bind A {_WINDOW} {_REGION}")
    assert shell.poll(0) == "A:send:0:0"
    partner_move(agent, 0)
    shell.do(f"through B {_REGION} {_WINDOW}")
    assert shell.poll(1) == "B:send:0:0"
    assert shell.tell(f"show {_REGION}") == "4711"
    shell.do(f"invalidate A {_WINDOW}", "sends A 2")
    assert shell.poll(0).split() == ["A:send:0:1", "A:send:0:2", "A:send:0:3"]


def test_an_error_is_the_devices(built: Shell, agent: Agent) -> None:
    """A list that does not fit is refused whole by the device, before a move and after one."""
    shell = built
    shell.connect("AB")
    for _ in range(2):
        assert shell.tell(f"sends A {_DEPTH + 2}") == "ENOMEM"
        switch(agent)
    shell.do("recv B 1", "send A 1")
    assert shell.poll(1) == "B:recv:0:0"


def test_who_builds_waits_for_nobody_when_a_quiesce_is_given_up(built: Shell, agent: Agent) -> None:
    """Another thread has posted meanwhile, which is kept, and cannot be sent before the list is complete."""
    shell = built
    shell.connect("AB", "CD")
    shell.do("recv B 2", "begin A")
    agent.send("QUIESCE", {"timeout_ms": 2000})
    # Until sends are kept.
    while True:
        shell.do("recv D 1", "send C 1")
        if not shell.poll(0):
            break
        shell.poll(1)
    shell.do("aside A")
    agent.connection.settimeout(20)
    with pytest.raises(GuestError, match="did not drain"):
        agent.answer()
    assert "A:" not in shell.poll(0)
    shell.tell("region 0 0")
    shell.do("end A")
    received: list[str] = []
    while len(received) < 2:
        shell.poll(0)
        received += [one for one in shell.poll(1).split() if one.startswith("B")]
    assert received == ["B:recv:0:0", "B:recv:0:1"]


def test_verb_in_an_open_section_does_not_wait_for_who_waits_for_that(built: Shell) -> None:
    """One thread builds, another one waits for the queue pair, and the first one ends something else meanwhile."""
    shell = built
    shell.connect("AB", "CD")
    shell.do("recv B 2", "begin A", "behind A", "destroy C", "end A", "meet")
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1"


def test_verb_in_an_open_section_is_not_held_by_a_drain_that_waits_for_it(built: Shell, agent: Agent) -> None:
    """Likewise, and a move begins."""
    shell = built
    shell.connect("AB")
    shell.do("recv B 2", "begin A", "behind A")
    agent.send("QUIESCE", {"timeout_ms": 1000 * PATIENT_S})
    assert shell.tell("region 5 0").isdigit()
    shell.do("end A", "meet")
    agent.answer()
    agent.resume()
    assert shell.poll(1) == "B:recv:0:0 B:recv:0:1"
