"""Print what a move costs its container: by ``migrrdma migrate`` and by docker's commands, in turn.

The downtime is what the container itself sees: it prints the time a hundred times a second, and the gap is between the
last line on the one host and the first on the other, whose clock is the same. `lab/rack --fast up` before; or
`lab/rack up` and ``--rack emulated``, whose kernel tracks writes: there memory goes ahead, and "in one piece" is what
it costs when it does not. The emulated hosts' clocks are a few hundredths of a second apart.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("lab", "tests/kit")]

from migrrdma_lab import rdma  # noqa: E402
from migrrdma_lab.choice import choose_rack  # noqa: E402
from migrrdma_lab.containers import Container  # noqa: E402
from migrrdma_lab.plan import DST, SRC  # noqa: E402
from migrrdma_lab.shell import Shell  # noqa: E402

_TICKS = """
import os, time
memory = bytearray(os.urandom(1 << 20) * {mib})
page = 0
while True:
    print(time.time(), flush=True)
    for _ in range({pages}):
        page = (page + 4096) % len(memory)
        memory[page] ^= 1
    time.sleep(0.01)
"""

Move = Callable[[Container, Shell], Container]


@dataclass(frozen=True)
class Cost:
    """Of one move, in seconds."""

    downtime: float
    whole: float


def _cost(move: Move, src: Shell, dst: Shell, mib: int, dirty: int) -> Cost:
    script = _TICKS.format(mib=mib, pages=(dirty << 20) // 4096 // 100)
    container = Container(src, "bench", ["python3", "-c", script])
    for node in (src, dst):
        container.on(node).remove()
    container.run().wait_for_line("^[0-9]", after=50)
    follower = container.shell.command(["docker", "logs", "-f", container.name])
    last = _Follower(follower)
    begin = time.monotonic()
    there = move(container, dst)
    whole = time.monotonic() - begin
    there.wait_for_line("^[0-9]")
    first = float(there.lines()[0])
    there.remove()
    return Cost(first - last.end(), whole)


class _Follower:
    """The last line that a container has printed: it may be gone, with its log, when one would ask."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def end(self) -> float:
        """When it was printed."""
        said, _ = self._process.communicate(timeout=60)
        return float(said.split()[-1])


def _in_one_piece(container: Container, to: Shell) -> Container:
    return rdma.migrate(container, to, "--rounds=0")


def _ahead(container: Container, to: Shell) -> Container:
    return rdma.migrate(container, to, "--rounds=8")


_WAYS: dict[str, dict[str, Move]] = {
    "fast": {"docker's commands": rdma.move, "migrrdma migrate": rdma.migrate},
    "emulated": {"in one piece": _in_one_piece, "memory ahead": _ahead},
}


def main() -> None:
    """Measure in turn, and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--mib", type=int, nargs="+", default=[16, 256], help="of memory that the container has"
    )
    parser.add_argument("--dirty", type=int, nargs="+", default=[0], help="MiB/s that it writes to")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rack", choices=sorted(_WAYS), default="fast")
    options = parser.parse_args()
    rack, ways = choose_rack(kind=options.rack), _WAYS[options.rack]
    src, dst = rack.shell(SRC), rack.shell(DST)
    for mib, dirty in itertools.product(options.mib, options.dirty):
        found: dict[str, list[Cost]] = {name: [] for name in ways}
        for _ in range(options.pairs):
            for name, move in ways.items():
                found[name].append(_cost(move, src, dst, mib, dirty))
        print(f"{mib} MiB, {dirty} MiB/s written to ({options.pairs} of each)")
        for name, costs in found.items():
            downtime = statistics.median(one.downtime for one in costs)
            whole = statistics.median(one.whole for one in costs)
            print(f"  {name:<20} downtime {downtime:7.3f} s   in all {whole:7.3f} s")
        pairs = zip(*found.values(), strict=True)
        ratio = statistics.median(second.downtime / first.downtime for first, second in pairs)
        print(f"  ratio of the downtimes, median of the pairs: {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
