"""Ports for the servers of tests: no two processes that run tests at once are given the same one."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _EACH, _PROCESSES = 10000, 7000, 3
"""Below those that the kernel gives to clients (ip(7), ip_local_port_range): whoever dials takes none of them."""

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
_NEXT = itertools.count(os.getpid())


def free_port() -> int:
    """A TCP port at which nobody listens on any address of the loopback, and which no test was given before."""
    while True:
        port = _FIRST + _WORKER * _EACH + next(_NEXT) % _EACH
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104 (what is listened at on one address is refused)
            except OSError:
                continue
        return port
