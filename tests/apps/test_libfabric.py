"""libfabric's own pingpong moves in mid-traffic."""

from __future__ import annotations

import re
from collections.abc import Callable

import applications
import pytest
from applications import Ends, Moves
from at_work import wait_until_at_work
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_PINGPONG = ["fi_pingpong", "-p", "verbs;ofi_rxd", "-e", "rdm", "-c", "-S", "1024"]
"""By datagrams, which ``ofi_rxd`` makes reliable: its other ways need rdma_cm. It compares what it receives."""

_TIMES_IN_A_MOVE = {"by docker's commands": 13_000, "live": 5_000}
"""Enough for it to be at work before and after one, on either rack."""

_ENVIRONMENT = ["FI_VERBS_GID_IDX=1"]

_UNTIL_IT_LISTENS = "until docker exec server ss -Hltn 'sport = :47592' | grep -q LISTEN; do sleep 0.2; done"
"""It does not say when."""

_FIGURES = r"^1k +([0-9]+k) +=\1 "
"""What it prints at its end: it has sent as many as it has received back."""


def _pid(one: Container) -> str:
    return one.docker("inspect", "-f", "{{.State.Pid}}", one.name).stdout.strip()


@pytest.mark.by_make_test("emulated")
def test_fi_pingpong_receives_what_was_sent_wherever_its_ends_are(
    nodes: list[Shell], containers: Register, moves: Moves
) -> None:
    src, _, peer = nodes
    times = sum(_TIMES_IN_A_MOVE["live" if one.live else "by docker's commands"] for one in moves)
    pingpong = [*_PINGPONG, "-I", str(times)]

    def end(node: Shell, name: str, command: list[str], address: str) -> Container:
        return containers(applications.container(node, name, command, address, _ENVIRONMENT)).run()

    server = end(peer, "server", pingpong, "10.78.0.151")
    peer.sh(_UNTIL_IT_LISTENS)
    ends = Ends(server, end(src, "client", [*pingpong, "10.78.0.151"], "10.78.0.150"))
    # Not in its first milliseconds: it gives up where its read() of the other's readiness is interrupted. The server is
    # at work when that is behind both.
    wait_until_at_work(ends.server.shell, _pid(ends.server), 100)
    for one in moves:
        ends.move(one)
        wait_until_at_work(ends.client.shell, _pid(ends.client))
    ends.client.wait_for_line(_FIGURES, 300)
    # Now each waits, sometimes for minutes, for the other's last acknowledgement: nobody waits for their end here.
    assert not re.search("error|mismatch", "\n".join(ends.client.lines()))
