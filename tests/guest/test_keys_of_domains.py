"""Two partners in two protection domains: each is told its own keys, and by any other number it fails as it did before.

Side 0 of ``states.c`` is what moves. The queue pairs of side 1 are its partners, each of them facing one domain.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from guest_agent import MOVING, PARTNER, Agent
from guest_moves import GIDS, SAME_INDEX, move, partner_move
from guest_shell import ERR, Shell

_REFUSED = 10
"""``IBV_WC_REM_ACCESS_ERR``."""

_FIRST, _LOCAL, _SECOND, _APART = range(4)
"""The regions: in the first domain for others, for itself, and for others again; for others in the second domain."""


@pytest.fixture
def regions(shell: Shell) -> dict[int, int]:
    """Their rkeys, as the application knows them: one after the other, of numbers that nobody else has."""
    shell.connect("AB", "CD", "EF", "GH", "IJ")
    shell.connect("KL", "MN", "OP", "QR", domain=1)
    shell.do(f"numbers 0 0 {0x500 << 8}")
    more = {_FIRST: "0", _LOCAL: "0 local", _SECOND: "0", _APART: "1"}
    return {place: int(shell.tell(f"region {place} 0 {domain}")) for place, domain in more.items()}


def physical(agent: Agent) -> dict[int, int]:
    """The rkeys of the first side's regions on its device, by those that the application knows."""
    return {one["vrkey"]: one["prkey"] for one in agent.ask("LIST_MRS").records if one["context"] == 1}


def move_awry(shell: Shell, agent: Agent, regions: dict[int, int], device: int) -> None:
    """Move side 0 to a device that gives each region the number that the next one had, and partners may hold."""
    before = list(physical(agent)).index(regions[_FIRST])
    shell.do(f"numbers {device} 0 {regions[_LOCAL] - (before << 8)}")
    partner_move(agent, device)
    now = physical(agent)
    assert now[regions[_FIRST]] == regions[_LOCAL]
    assert now[regions[_SECOND]] == regions[_APART]


def write(shell: Shell, partner: str, region: int, by: int) -> int:
    """Have a partner write into a region by the key of one: the status."""
    shell.do(f"write {partner} {region} {by}")
    name, what, status, _ = shell.poll(1).split(":")
    assert (name, what) == (partner, "send")
    return int(status)


def check(shell: Shell) -> None:
    """Whatever has happened: a partner reaches the regions that are for it, by their keys, and nothing else."""
    wrong = [
        *(("B", _FIRST, _LOCAL), ("D", _SECOND, _APART), ("F", _FIRST, _APART), ("H", _SECOND, _LOCAL)),
        *(("L", _APART, _FIRST), ("N", _APART, _SECOND), ("P", _APART, _LOCAL)),
    ]
    for partner, region, by in wrong:
        assert write(shell, partner, region, by) == _REFUSED, (partner, region, by)
        assert shell.tell(f"show {region}") == "0"
        assert shell.state(partner) == ERR
    for partner, region in (("J", _FIRST), ("J", _SECOND), ("R", _APART)):
        assert write(shell, partner, region, region) == 0
        assert shell.tell(f"show {region}") == "4711"


def stay(_shell: Shell, _agent: Agent, _regions: dict[int, int]) -> None:
    """Nothing: what the device alone says to all of it."""


def once(shell: Shell, agent: Agent, regions: dict[int, int]) -> None:
    """One move."""
    move_awry(shell, agent, regions, 1)


def again(shell: Shell, agent: Agent, regions: dict[int, int]) -> None:
    """Several moves."""
    for device in (1, 0, 1):
        move_awry(shell, agent, regions, device)


def partners_too(shell: Shell, agent: Agent, regions: dict[int, int]) -> None:
    """Then the partners move, who go on with what they were told, and then both ends at once."""
    move_awry(shell, agent, regions, 1)
    _partners_move(agent)
    move(agent, (0, 1))


def _partners_move(agent: Agent) -> None:
    """Side 1 moves in place, and side 0 prepares for that."""
    agent.ask("PREPARE", {"kind": 1, "context": 1})
    agent.quiesce()
    agent.ask("PARK")
    agent.ask("REBUILD", {"context": 2, "device": "fake0"}, [SAME_INDEX])
    agent.connect_all({1: (GIDS[1], MOVING), 2: (GIDS[0], PARTNER)})
    agent.give_keys(2, PARTNER)
    agent.resume()


Story = Callable[[Shell, Agent, dict[int, int]], None]


@pytest.mark.parametrize("story", [stay, once, again, partners_too], ids=lambda story: story.__name__)
def test_every_key_means_what_it_meant_before(
    shell: Shell, agent: Agent, regions: dict[int, int], story: Story
) -> None:
    story(shell, agent, regions)
    check(shell)


def test_a_key_that_is_given_out_after_the_move_is_good_in_its_own_domain(
    shell: Shell, agent: Agent, regions: dict[int, int]
) -> None:
    move_awry(shell, agent, regions, 1)
    here, there = 4, 5
    for place, domain in ((here, 0), (there, 1)):
        shell.tell(f"region {place} 0 {domain}")
    for _ in range(2):
        assert write(shell, "J", here, here) == 0
        assert write(shell, "R", there, there) == 0
        partner_move(agent, 0)
    assert write(shell, "B", there, there) == _REFUSED
    assert write(shell, "L", here, here) == _REFUSED
    assert shell.tell(f"show {_FIRST}") == "0"


def test_a_partner_has_no_key_in_its_memory_that_it_cannot_use(shell: Shell, agent: Agent) -> None:
    """Seen from outside: the pairs of numbers of which its maps consist."""
    shell.connect("AB")
    virtual = [int(shell.tell(f"region {region}")) for region in ("0 0", "1 0 0 local", "2 0", "3 0 1")]
    partner_move(agent, 1)
    now = physical(agent)
    memory = _writable_memory(shell.process.pid)
    pairs = [struct.pack("<II", one, now[one]) for one in virtual]
    assert [pair in memory for pair in pairs] == [True, False, True, False]
    assert [one in now.values() for one in virtual] == [False] * 4


def _writable_memory(pid: int) -> bytes:
    """What the process has written, of its own and of libraries."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(one, 16) for one in area.split("-"))
                memory.seek(start)
                found.append(memory.read(end - start))
    return b"".join(found)


def test_regions_that_are_for_nobody_else_may_all_have_the_key_0(shell: Shell, agent: Agent) -> None:
    """With such a driver each that is registered after a move, or ended, has the number of one that is there."""
    shell.connect("AB")
    shell.do("local_rkeys 0")
    assert [shell.tell(f"region {place} 0 0 local") for place in range(3)] == ["0"] * 3
    shared = int(shell.tell("region 3 0"))
    for device in (1, 0):
        shell.do("numbers 0 0 4096", "numbers 1 0 8192")
        partner_move(agent, device)
        shell.do("free 0")
        assert shell.tell("region 0 0 0 local") == "0"
        assert write(shell, "B", 3, 3) == 0
        assert physical(agent)[shared] != 0
    # Then to a driver that gives them a key each, and back.
    for have, device in ((1, 1), (0, 0)):
        shell.do(f"local_rkeys {have}")
        partner_move(agent, device)
        shell.do("free 1", "free 2")
        for place in (1, 2):
            shell.tell(f"region {place} 0 0 local")
        assert write(shell, "B", 3, 3) == 0
