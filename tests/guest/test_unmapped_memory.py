"""A region that its process has unmapped a part of moves with what is left; whoever uses the rest of it is told.

UCX leaves regions like that behind all the time: it ends them when it next has something to do with its cache of them.
"""

from __future__ import annotations

import pytest
from guest_agent import Agent
from guest_moves import move
from guest_shell import ERR, Shell

_REFUSED = 10
"""``IBV_WC_REM_ACCESS_ERR``."""

_PAGES = 7


@pytest.mark.parametrize(
    ("unmapped", "left"),
    [
        pytest.param([], range(_PAGES), id="nothing"),
        pytest.param([(3, 4)], range(3), id="its end"),
        pytest.param([(0, 3)], range(3, _PAGES), id="its beginning"),
        pytest.param([(2, 1)], range(3, _PAGES), id="a part before its middle"),
        pytest.param([(4, 1)], range(4), id="a part behind its middle"),
        pytest.param([(0, 1), (6, 1)], range(0), id="both ends, of which one is to be left"),
        pytest.param([(0, _PAGES)], range(0), id="all of it"),
    ],
)
def test_what_is_left_of_a_region_moves_and_the_rest_fails_for_whoever_uses_it(
    shell: Shell, agent: Agent, unmapped: list[tuple[int, int]], left: range
) -> None:
    shell.connect("AB", *(f"{chr(67 + 2 * i)}{chr(68 + 2 * i)}" for i in range(_PAGES)))
    shell.do(f"pages 0 0 {_PAGES}", *(f"unmap 0 {first} {count}" for first, count in unmapped))
    for devices in ((1, 0), (0, 1)):
        move(agent, devices)
        for page in left:
            shell.do(f"reach B 0 {page}")
            assert shell.poll(1).split(":")[2] == "0", agent.diagnosis()
            assert shell.tell(f"look 0 {page}") == "4711"
    for page in set(range(_PAGES)) - set(left):
        partner = chr(68 + 2 * page)
        shell.do(f"reach {partner} 0 {page}")
        assert shell.poll(1).split(":")[2] == str(_REFUSED), agent.diagnosis()
        assert shell.state(partner) == ERR
    shell.do("free 0")
