"""Print what a checkpoint costs its host's agent when many are made at once: milliseconds of processor time for each.

All of it but the dump: the agent with its loop and its database, and the processes' and the runtimes' part of the
conversation, which are in this process as well.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests" / part) for part in ("kit", "doubles")]

import cluster  # noqa: E402
from many_checkpoints import checkpoint_at_once  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, nargs="+", default=[1, 10, 100])
    for count in parser.parse_args().containers:

        async def measure(hosts: cluster.Cluster, count: int = count) -> None:
            each = 1000 * await checkpoint_at_once(hosts, count)
            print(f"{count:4} containers at once: {each:.1f} ms each, {count * each:.0f} ms in all")

        with tempfile.TemporaryDirectory() as folder:
            cluster.play(Path(folder), measure)


if __name__ == "__main__":
    main()
