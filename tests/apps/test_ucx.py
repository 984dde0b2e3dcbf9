"""UCX's own measurement moves in mid-traffic."""

from __future__ import annotations

from collections.abc import Callable

import applications
import pytest
from applications import Ends
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_FIGURES = r"^\[thread 0\] +[0-9]+ "
"""What it prints once a second."""

_UNTIL_IT_LISTENS = "until docker exec server ss -Hltn 'sport = :13337' | grep -q LISTEN; do sleep 0.2; done"
"""It says that it waits before it listens."""

_TRANSPORTS = {
    # A shared receive queue for all connections, device memory where there is any, address handles while it connects.
    "rc_verbs of uct": ("-d rxe0:1 -x rc_verbs -t am_lat -s 64", ()),
}


@pytest.mark.parametrize(
    ("options", "environment"), [pytest.param(*each, id=name) for name, each in _TRANSPORTS.items()]
)
def test_ucx_perftest_goes_on_wherever_its_ends_are(
    nodes: list[Shell], containers: Register, options: str, environment: tuple[str, ...]
) -> None:
    src, dst, peer = nodes
    # By count it would end before the moves are over, or long after, as fast as this machine happens to be.
    perftest = f"ucx_perftest {options} -w 10 -n 1000000000"

    def end(node: Shell, name: str, address: str, words: str) -> Container:
        # Without an open stdin it ends.
        return containers(
            applications.container(node, name, words.split(), address, environment, options=["--interactive"])
        ).run()

    server = end(peer, "server", "10.78.0.151", perftest)
    peer.sh(_UNTIL_IT_LISTENS, timeout=60)
    ends = Ends(server, end(src, "client", "10.78.0.150", f"{perftest} 10.78.0.151"))
    ends.client.wait_for_line(_FIGURES)
    for name, to in (("server", dst), ("client", peer), ("server", src), ("client", dst)):
        ends.move(name, to)
        ends.client.wait_for_line(_FIGURES, 120, after=len(ends.client.lines()))
        for one in (ends.server, ends.client):
            assert one.running(), one.lines()
            assert not [line for line in one.lines() if "ERROR" in line or "WARN" in line], one.lines()
