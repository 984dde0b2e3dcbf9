"""Print what it costs to commit a restore before the application's first instruction, step by step, as a table.

A container with connections to another host moves to and fro between two nodes, with `late_commit` and without it.
Milliseconds are medians of the moves, by `migrrdma timeline` of the host that restored it; *dump* is the low-level
runtime's `checkpoint`, *frozen* what the container stood of it, *blackout* how long the partner's sends waited.
The rack must be up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "kit"), str(ROOT / "lab")]

import workload  # noqa: E402
from migrrdma_lab.choice import choose_rack  # noqa: E402
from migrrdma_lab.plan import DST, NODES, PEER, SRC  # noqa: E402
from migrrdma_lab.rack import Rack  # noqa: E402
from runtime_container import RuntimeContainer  # noqa: E402

GOES_ON = "^ *[0-9]+ s +[1-9][0-9]* ops/s"
STEPS = ("dump", "frozen", "restore", "reconnect", "rebuild", "connect", "commit", "switch")

Times = dict[str, float]


def configure(rack: Rack, *, late: bool) -> None:
    """Have both nodes commit before the first instruction, as without a configuration, or afterwards."""
    line = "" if late else "; sed -i 's/^\\[criu\\]$/&\\nlate_commit = false/' /etc/migrrdma/config.toml"
    for node in (SRC, DST):
        rack.shell(node).sh(f"sed -i '/^late_commit/d' /etc/migrrdma/config.toml{line}")


def prepare(rack: Rack, queue_pairs: int) -> tuple[RuntimeContainer, RuntimeContainer]:
    """The two ends, on all nodes where they may be; they run."""
    with tempfile.TemporaryDirectory() as folder:
        workload.build(Path(folder)).put(*(rack.shell(node) for node in NODES))
    ends = []
    for container, address in zip(
        workload.pair(rack.shell(SRC), rack.shell(PEER), "-q", str(queue_pairs)), (160, 161), strict=True
    ):
        command = [word.replace(workload.IN_CONTAINER, "/mnt") for word in container.command]
        binds = [(workload.ON_NODE, "/mnt")]
        end = RuntimeContainer(container.shell, container.name, f"10.78.0.{address}", command, binds)
        for node in NODES:
            end.on(rack.shell(node)).remove()
            end.on(rack.shell(node)).prepare()
        ends.append(end)
    client, server = ends
    server.run()
    client.run().wait_for_line(GOES_ON)
    return client, server


def times(container: RuntimeContainer) -> Times:
    """Of the move that has brought it here."""
    container.wait_for_line(GOES_ON, after=len(container.lines()))
    found = json.loads(container.shell.run("migrrdma", "timeline", "--json").stdout)
    steps = {one["name"]: float(one["seconds"]) for one in found["timeline"]}
    return {name: steps.get(name, 0.0) for name in STEPS} | {
        "blackout": max(found["blackout"].values(), default=0.0),
        "downtime": float(found["downtime"]),
    }


def main() -> None:
    """Move it, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=20, help="of each kind")
    parser.add_argument("--queue-pairs", type=int, default=4)
    arguments = parser.parse_args()
    rack = choose_rack()
    container, partner = prepare(rack, arguments.queue_pairs)
    found: dict[bool, list[Times]] = {True: [], False: []}
    try:
        for move in range(2 * arguments.moves):
            late = move // 2 % 2 == 0  # each kind both ways
            configure(rack, late=late)
            container = container.move(rack.shell(SRC if container.shell.node is DST else DST))
            found[late].append(times(container))
    finally:
        configure(rack, late=True)
        for end in (container, partner):
            end.remove()
    print(f"{'ms':10} {'afterwards':>12} {'before':>12}")
    for name in (*STEPS, "blackout", "downtime"):
        after, before = (statistics.median(one[name] for one in found[late]) * 1000 for late in (False, True))
        print(f"{name:10} {after:12.1f} {before:12.1f}")


if __name__ == "__main__":
    main()
