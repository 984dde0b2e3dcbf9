"""Print what a migration's messages and manifest cost: milliseconds of processor time, beside what bare JSON takes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests/kit")]

from conversation import Conversation  # noqa: E402


def milliseconds(work: Callable[[], None], runs: int) -> float:
    """Processor time of the quickest of some runs: the others were disturbed."""

    def once() -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return 1000 * min(once() for _ in range(runs))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qps", type=int, default=16_384)
    parser.add_argument("--mrs", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    talk = Conversation(chosen.qps, chosen.mrs)
    bare = milliseconds(talk.only_as_json, chosen.runs)
    print(f"{chosen.qps:,} QPs and {chosen.mrs:,} MRs; JSON alone takes {bare:.0f} ms")
    for what, work in (
        ("the agents' messages", talk.messages_there_and_back),
        ("the manifest", talk.manifest_there_and_back),
        ("the remote keys", talk.keys_there_and_back),
        ("all of it", talk.all_there_and_back),
        ("a process's regions", talk.regions_of_a_process),
        ("what others may reach", talk.keys_of_a_process),
    ):
        took = milliseconds(work, chosen.runs)
        print(f"  {what:22} {took:6.0f} ms  ratio {took / bare:.2f}")


if __name__ == "__main__":
    main()
