"""perftest's tools as the tests run them."""

from __future__ import annotations

IN_SPITE_OF_THE_CLOCK = "-F"
"""Print a rate of 0, or an infinite time, where it cannot be told, and go on.

Before each line of figures a tool compares the processor's counter with the clock anew. Each time that a busy machine
takes the processor away between its readings of the two, they seem to agree less ("Correlation coefficient r^2: 0.6 <
0.9"), and then a bandwidth tool would end with "Can't produce a report".
"""


def perftest(tool: str, *options: str) -> tuple[str, ...]:
    """A tool's command line on Soft-RoCE, by the address that a node's data network has."""
    return (tool, "-d", "rxe0", "-x", "1", IN_SPITE_OF_THE_CLOCK, *options)
