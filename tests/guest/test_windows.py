"""Memory windows of both types move: what they open is open again under the same numbers, what is closed stays closed.

Side 0 of ``states.c`` has the windows; the queue pairs of side 1 come through them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guest_agent import PATIENT_S, Agent, GuestError
from guest_moves import move, partner_move
from guest_shell import Shell

_REFUSED = 10
"""``IBV_WC_REM_ACCESS_ERR``."""

_REGION, _WINDOW = 0, 0
_ONE, _TWO = 1, 2
"""The types of windows."""


def prepare(shell: Shell, kind: int) -> None:
    """A region that others reach through a window alone; A, whose peer B is, binds."""
    shell.connect("AB", "CD")
    shell.tell(f"region {_REGION} 0 0 local windows")
    shell.tell(f"window {_WINDOW} 0 {kind}")


def bind(shell: Shell, what: str = str(_REGION)) -> None:
    shell.do(f"bind A {_WINDOW} {what}")
    name, _, status, _ = shell.poll(0).split(":")
    assert (name, status) == ("A", "0")


def through(shell: Shell, partner: str) -> int:
    """Have a partner write by the window's key: the status."""
    shell.do(f"through {partner} {_REGION} {_WINDOW}")
    name, _, status, _ = shell.poll(1).split(":")
    assert name == partner
    return int(status)


def is_open(shell: Shell, agent: Agent) -> None:
    assert through(shell, "B") == 0, agent.diagnosis()
    assert shell.tell(f"show {_REGION}") == "4711"


Move = Callable[[Shell, Agent, int], None]


def alone(shell: Shell, agent: Agent, turn: int) -> None:
    """The windows' side moves, to a device of other numbers than those before."""
    shell.do(f"numbers {1 - turn % 2} 0 {0x700 + turn * 16 << 8}")
    partner_move(agent, 1 - turn % 2)


def together(shell: Shell, agent: Agent, turn: int) -> None:
    """Both sides move."""
    shell.do(f"numbers {turn % 2} 0 {0x700 + turn * 16 << 8}")
    move(agent, (turn % 2, turn % 2))


@pytest.mark.parametrize("kind", [_ONE, _TWO])
@pytest.mark.parametrize("way", [alone, together], ids=lambda way: way.__name__)
def test_bound_window_is_open_after_each_move(shell: Shell, agent: Agent, kind: int, way: Move) -> None:
    prepare(shell, kind)
    bind(shell)
    assert not agent.ask("INVENTORY").records
    is_open(shell, agent)
    for turn in range(3):
        way(shell, agent, turn)
        is_open(shell, agent)
    # One of type 2 is good for one queue pair alone.
    assert through(shell, "D") == (0 if kind == _ONE else _REFUSED)


@pytest.mark.parametrize("kind", [_ONE, _TWO])
def test_window_is_bound_anew_after_a_move(shell: Shell, agent: Agent, kind: int) -> None:
    """Under a number that no peer has heard of before the move."""
    prepare(shell, kind)
    bind(shell)
    for turn in range(3):
        alone(shell, agent, turn)
        if kind == _TWO:
            shell.do(f"invalidate A {_WINDOW}")
            shell.poll(0)
        bind(shell)
        is_open(shell, agent)


@pytest.mark.parametrize("kind", [_ONE, _TWO])
def test_window_that_was_never_bound_or_is_no_more_stays_closed(
    shell: Shell, agent: Agent, kind: int
) -> None:
    prepare(shell, kind)
    alone(shell, agent, 0)
    bind(shell)
    is_open(shell, agent)
    if kind == _ONE:
        bind(shell, "")
    else:
        shell.do(f"invalidate A {_WINDOW}")
        assert shell.poll(0) == "A:send:0:1"
    alone(shell, agent, 1)
    assert through(shell, "B") == _REFUSED


@pytest.mark.parametrize("polled", [False, True])
def test_window_that_the_peer_has_invalidated_stays_closed(shell: Shell, agent: Agent, polled: bool) -> None:
    prepare(shell, _TWO)
    alone(shell, agent, 0)
    bind(shell)
    shell.do("recv A 1", f"send B {_WINDOW} away")
    assert shell.poll(1) == "B:send:0:0"
    if polled:
        assert shell.poll(0) == f"A:recv:0:0:{_WINDOW}"
    alone(shell, agent, 1)
    if not polled:
        assert shell.poll(0) == f"A:recv:0:0:{_WINDOW}"
    assert through(shell, "B") == _REFUSED


@pytest.mark.parametrize("kind", [_ONE, _TWO])
def test_window_that_is_bound_while_its_side_rests_opens_afterwards(
    shell: Shell, agent: Agent, kind: int
) -> None:
    prepare(shell, kind)
    agent.quiesce()
    shell.do(f"bind A {_WINDOW} {_REGION}")
    assert shell.poll(0) == ""
    agent.ask("UNDO")
    assert shell.poll(0) == "A:send:0:0"
    is_open(shell, agent)


def test_partner_with_a_window_bound_to_the_very_queue_pair_refuses(shell: Shell, agent: Agent) -> None:
    prepare(shell, _TWO)
    bind(shell)

    def quiesce(name: str) -> None:
        agent.ask(
            "QUIESCE",
            {"kind": 2, "timeout_ms": 1000 * PATIENT_S},
            [{"context": 1, "vqpn": shell.numbers[name]}],
        )

    with pytest.raises(GuestError, match="a memory window that is bound to this queue pair"):
        quiesce("A")
    quiesce("C")
    agent.ask("UNDO")
    shell.do(f"invalidate A {_WINDOW}")
    quiesce("A")
    agent.ask("UNDO")


def test_every_key_that_peers_may_be_told_is_in_the_inventory(shell: Shell, agent: Agent) -> None:
    """The agent refuses what it could not be told after the dump: a window has many keys."""
    prepare(shell, _TWO)
    regions = len(agent.ask("LIST_MRS").records)
    assert agent.ask("INVENTORY").body["keys"] == regions + 256
    alone(shell, agent, 0)
    assert len(agent.ask("LIST_MRS").records) == regions + 256
    shell.do(f"close {_WINDOW}")
    assert agent.ask("INVENTORY").body["keys"] == regions


def test_number_of_a_window_that_has_ended_is_given_to_nobody(shell: Shell, agent: Agent) -> None:
    prepare(shell, _ONE)
    index = int(shell.tell(f"window {_WINDOW} 0 {_ONE}")) >> 8
    alone(shell, agent, 0)
    shell.do(f"close {_WINDOW}")
    shell.do(f"numbers 1 0 {index << 8}")
    assert int(shell.tell("region 1 0 0")) >> 8 != index
    shell.do(f"numbers 1 0 {index << 8}")
    assert int(shell.tell(f"window 1 0 {_ONE}")) >> 8 != index


@pytest.mark.parametrize("by_calls", [0, 1])
def test_bound_anew_at_rest(shell: Shell, agent: Agent, by_calls: int) -> None:
    """bind, invalidate, bind again: all of it kept, then posted together."""
    shell.do(f"built {by_calls}")
    prepare(shell, 2)
    agent.quiesce()
    shell.do("bind A 0 0", "invalidate A 0", "bind A 0 0")
    agent.ask("UNDO")
    assert shell.poll(0).split() == ["A:send:0:0", "A:send:0:1", "A:send:0:2"]
    shell.do("through B 0 0")
    assert shell.poll(1) == "B:send:0:0"
    shell.do("numbers 1 0 458752")
    partner_move(agent, 1)
    shell.do("through B 0 0")
    assert shell.poll(1) == "B:send:0:1"


@pytest.mark.parametrize("kind", [1, 2])
def test_window_ends_while_its_bind_is_kept(shell: Shell, agent: Agent, kind: int) -> None:
    prepare(shell, kind)
    agent.quiesce()
    shell.do("bind A 0 0", "close 0", "sends A 1", "recv B 1")
    agent.ask("UNDO")
    assert shell.poll(0).split() == ["A:send:0:0", "A:send:0:1"]
    assert shell.tell("free 0") == "ok"


def test_window_ends_while_its_invalidation_is_kept(shell: Shell, agent: Agent) -> None:
    prepare(shell, 2)
    shell.do("bind A 0 0")
    shell.do("numbers 1 0 458752")
    partner_move(agent, 1)
    agent.quiesce()
    shell.do("invalidate A 0", "close 0")
    assert shell.tell("free 0") == "ok"
    agent.ask("UNDO")
    assert shell.poll(0).split() == ["A:send:0:0", "A:send:0:1"]


@pytest.mark.parametrize("kind", [1, 2])
def test_region_ends_while_a_bind_to_it_is_kept(shell: Shell, agent: Agent, kind: int) -> None:
    """A device would have bound it by now, and refuse."""
    prepare(shell, kind)
    agent.quiesce()
    shell.do("bind A 0 0")
    assert shell.tell("free 0") == "EBUSY"
    agent.ask("UNDO")
    assert shell.poll(0) == "A:send:0:0"
    shell.do("through B 0 0")
    assert shell.poll(1) == "B:send:0:0"
    partner_move(agent, 1)


@pytest.mark.parametrize("kind", [1, 2])
def test_region_and_window_end_kept(shell: Shell, agent: Agent, kind: int) -> None:
    prepare(shell, kind)
    agent.quiesce()
    shell.do("bind A 0 0", "close 0", "free 0")
    agent.ask("UNDO")
    assert shell.poll(0) == "A:send:0:0"
    partner_move(agent, 1)


@pytest.mark.parametrize("freed", [False, True], ids=["", "freed"])
@pytest.mark.parametrize("again", [False, True], ids=["", "gone on"])
def test_refused_bind_leaves_an_unreliable_queue_pair_that_moves(
    shell: Shell, agent: Agent, again: bool, freed: bool
) -> None:
    """It is in SQE, or has been brought on from there; the bind, which is tried again, is refused again."""
    shell.do("type uc")
    shell.connect("AB", "CD")
    shell.tell(f"region {_REGION} 0 0 local")
    shell.tell(f"window {_WINDOW} 0 2")
    shell.do(f"bind A {_WINDOW} {_REGION}")
    assert shell.poll(0) != "A:send:0:0"
    if again:
        shell.do("on A")
    if freed:
        shell.do(f"free {_REGION}")
    shell.do("numbers 1 0 458752")
    partner_move(agent, 1)
    shell.do("recv D 1", "send C 1")
    assert (shell.poll(1), shell.poll(0)) == ("D:recv:0:0", "C:send:0:0")
    if again:
        shell.do("recv B 1", "send A 1")
        assert shell.poll(1) == "B:recv:0:0"


@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("ended", ["destroy A", "reset A", ""])
@pytest.mark.parametrize("kind", [1, 2])
def test_bind_that_the_device_has_refused_does_not_keep_from_moving(
    shell: Shell, agent: Agent, kind: int, ended: str, freed: bool
) -> None:
    shell.connect("AB", "CD")
    shell.tell("region 0 0 0 local")
    shell.tell(f"window 0 0 {kind}")
    shell.do("bind A 0 0")
    assert shell.poll(0) != "A:send:0:0"
    if ended:
        shell.do(ended)
    if freed:
        shell.do("free 0")
        shell.tell("region 1 0 0")
    shell.do("numbers 1 0 458752")
    partner_move(agent, 1)
    shell.do("recv D 1", "send C 1")
    assert shell.poll(1) == "D:recv:0:0"


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("bound_before", [False, True])
@pytest.mark.parametrize("way", [alone, together], ids=lambda way: way.__name__)
def test_window_that_was_closed_at_a_move_is_bound_after_it(
    shell: Shell, agent: Agent, way: Move, bound_before: bool, kept: bool
) -> None:
    """The device gives the next one a number of its own, from which it goes on."""
    prepare(shell, _TWO)
    for turn in range(3):
        if bound_before:
            bind(shell)
            shell.do(f"invalidate A {_WINDOW}")
            shell.poll(0)
        if kept and way is together:
            shell.do(f"numbers {turn % 2} 0 {0x700 + turn * 16 << 8}")
            agent.quiesce()
            shell.do(f"bind A {_WINDOW} {_REGION}")
            move(agent, (turn % 2, turn % 2))
            assert shell.poll(0).split(":")[2] == "0"
        else:
            way(shell, agent, turn)
            bind(shell)
        is_open(shell, agent)
        shell.do(f"invalidate A {_WINDOW}")
        shell.poll(0)
