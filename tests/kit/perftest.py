"""perftest's tools as the tests run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

IN_SPITE_OF_THE_CLOCK = "-F"
"""Print a rate of 0, or an infinite time, where it cannot be told, and go on.

Before each line of figures a tool compares the processor's counter with the clock anew. Each time that a busy machine
takes the processor away between its readings of the two, they seem to agree less ("Correlation coefficient r^2: 0.6 <
0.9"), and then a bandwidth tool would end with "Can't produce a report".
"""


def perftest(tool: str, *options: str) -> tuple[str, ...]:
    """A tool's command line on Soft-RoCE, by the address that a node's data network has."""
    return (tool, "-d", "rxe0", "-x", "1", IN_SPITE_OF_THE_CLOCK, *options)


RESULT = r"^ *[0-9]+ +[0-9]+ +"
"""A line of figures, which every perftest tool prints each time its duration has passed."""


def endless(tool: str, *options: str) -> tuple[str, ...]:
    """The tool's command line: without an end and printing figures, or with one if it cannot do that."""
    rest: tuple[str, ...]
    if tool.endswith("_lat"):
        # By count and not by time, of which a move may take any: it does not end while the other end is away.
        rest = ("-s", "4096", "-n", "10000")
    elif "-e" in options:
        # It must not end before the move begins, which takes Docker some seconds: a minute at 45 MB/s. With a deep
        # queue Soft-RoCE's workers, which are not nice, would keep the processor until the last byte.
        rest = ("-s", "65536", "-t", "2", "-n", str(42_000 // qps(options)))
    else:
        rest = ("-s", "4096", "--run_infinitely", "-D", "2")
    # A node has one processor; what polls must not keep Docker and the agent from it.
    return ("nice", "-n", "19", *perftest(tool, *rest, *options))


def qps(options: Sequence[str]) -> int:
    """How many queue pairs a tool has with these options."""
    return int(options[options.index("-q") + 1]) if "-q" in options else 1


def pair(
    src: Shell, peer: Shell, containers: Register, tool: str, *options: str
) -> tuple[Container, Container]:
    """A perftest client on ``src`` and its server on ``peer``, with traffic between them."""
    command = endless(tool, *options)
    server = containers(rdma.container(peer, "server", command, "10.78.0.151"))
    server.run().wait_for_line("Waiting for client")
    client = containers(rdma.container(src, "client", (*command, "10.78.0.151"), "10.78.0.150"))
    client.run().wait_for_line(RESULT if _prints_figures(client) else "^ *#bytes", 90)
    return client, server


def _prints_figures(one: Container) -> bool:
    """Whether it does so all the time: a server that only lets its memory be written or read has none."""
    return "--run_infinitely" in one.command and (
        one.name == "client" or any(word.startswith("ib_send") for word in one.command)
    )


def both_go_on(*both: Container) -> None:
    """Those that print figures print more, those without an end have not ended, and none has failed."""
    for one in both:
        if _prints_figures(one):
            one.wait_for_line(RESULT, 90, after=len(one.lines()) + 1)
        if "--run_infinitely" in one.command:
            assert one.running(), one.lines()
        has_no_error(one)


def has_no_error(one: Container) -> None:
    """It has printed none."""
    bad = [line for line in one.lines() if "rror" in line or "ailed" in line]
    assert not bad, bad
