"""Print what the guest library adds to each call of the data path, as a table in Markdown.

Nanoseconds are medians of pairs of runs, with and without the library in turn; instructions are callgrind's. Before
a move and after one, which has given every object another number; with one QP and memory region, and with many.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / part) for part in ("tests/kit", "lab")]

from guest_agent import Agent, facing  # noqa: E402
from guest_build import build, compile_c  # noqa: E402

CALLS = (
    "post_send", "post_recv", "poll_empty", "poll_single", "poll_batch",
    "post_srq_recv", "poll_srq_single", "poll_srq_batch", "build_send", "post_datagram", "post_xrc",
)  # fmt: skip
SIZES = ((1, 1), (1024, 1), (1, 100_000), (1024, 100_000))


@dataclass
class Bench:
    """The program and the two environments it runs in."""

    program: Path
    directory: Path
    without: Mapping[str, str]
    library: Path

    def run(
        self,
        call: str,
        sizes: tuple[int, int],
        count: int,
        *,
        library: bool,
        moved: bool,
        counter: tuple[str, ...] = (),
    ) -> tuple[str, str]:
        """Standard output and error of one run."""
        command = [*counter, self.program, *map(str, sizes), call, str(count)]
        with Agent(Path(tempfile.mkdtemp(dir=self.directory))) as agent:
            env = {**self.without, **agent.environment}
            if library:
                env["LD_PRELOAD"] = str(self.library)
            process = subprocess.Popen(
                list(map(str, command)),
                env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise SystemExit(f"{call}: {process.communicate()[1]}")
            if library:
                agent.accept()
                if moved:
                    move(agent)
            out, err = process.communicate("go\n", timeout=300)
            if process.returncode:
                raise SystemExit(f"{call}: {process.returncode}: {err}")
            return out.strip(), err

    def nanoseconds(
        self, call: str, sizes: tuple[int, int], pairs: int, *, moved: bool
    ) -> tuple[float, float]:
        """Per call without the library, and what it adds: medians of pairs of runs."""
        runs = [
            [
                float(self.run(call, sizes, 2_000_000, library=library, moved=moved)[0])
                for library in (False, True)
            ]
            for _ in range(pairs)
        ]
        return statistics.median(r[0] for r in runs), statistics.median(r[1] - r[0] for r in runs)

    def instructions(self, call: str, sizes: tuple[int, int], *, moved: bool) -> float:
        """What the library adds to each call."""
        function = call.replace("poll_srq_", "poll_")
        counter = (
            "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no",
            f"--toggle-collect=measure_{function}",
        )  # fmt: skip
        totals = []
        for library in (False, True):
            # The warming up is counted too, and falls out of the difference of two runs.
            seen = []
            for count in (16384, 32768):
                err = self.run(call, sizes, count, library=library, moved=moved, counter=counter)[1]
                found = re.search(r"Collected : (\d+)", err)
                if found is None:
                    raise SystemExit(f"callgrind did not count: {err}")
                seen.append(int(found[1]))
            totals.append((seen[1] - seen[0]) / 16384)
        return totals[1] - totals[0]


SIZES_OF = """
#include <stdio.h>
#include "shadow/cq.h"
#include "shadow/mr.h"
#include "shadow/qp.h"
int main(void)
{
    /* What is written of each receive, and how many the ring of a queue of 64 holds. */
    printf("%zu %zu %zu %zu", sizeof(struct mig_qp), sizeof(struct mig_mr), sizeof(struct mig_cq),
           128 * (sizeof(struct mig_recv) + sizeof(struct ibv_sge)));
    return 0;
}
"""


def print_memory(bench: Bench) -> None:
    """What a QP with queues of 64 takes: by its structures, and as the heap has grown."""
    (bench.directory / "sizes.c").write_text(SIZES_OF)
    compile_c(bench.directory / "sizes", f"-I{HERE.parents[1] / 'guest'}", bench.directory / "sizes.c")
    out = subprocess.run([bench.directory / "sizes"], capture_output=True, text=True, check=True).stdout
    qp, mr, cq, ring = map(int, out.split())
    with_it, without = (
        float(bench.run("memory", (1024, 1), 1, library=on, moved=False)[0]) for on in (True, False)
    )
    print(f"sizeof: QP {qp}, memory region {mr}, CQ {cq} bytes; ring of 64 receives {ring} bytes")
    print(
        f"measured per QP of 1,024: {with_it - without:.0f} bytes, {with_it - without - ring:.0f} without the ring"
    )


def move(agent: Agent) -> None:
    """Rebuild the process's objects on the same device, under other numbers."""
    agent.quiesce()
    agent.ask("PARK")
    context = agent.ask("LIST_CONTEXTS").records[0]["context"]
    gids = [{"port": 1, "index": 0, "new_port": 1, "new_index": 0}]
    agent.ask("REBUILD", {"context": context, "device": "none0"}, gids)
    records = [
        {
            "context": context,
            "vqpn": qp["vqpn"],
            "dest_pqpn": qp["next_pqpn"],
            "peer": facing(1, qp["pd"]),
            "dgid": bytes(16),
        }
        for qp in agent.qps()
    ]
    for start in range(0, len(records), 400):
        agent.ask("CONNECT", None, records[start : start + 400])
    agent.give_keys(context, 1)
    agent.resume()


def main() -> None:
    """Build, run and print one line per call and case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs")
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=CALLS)
    parser.add_argument("--quick", action="store_true", help="one QP and one memory region only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        library = build(directory, "plain").library
        bare = directory / "nothing"
        bare.mkdir()
        version_script = f"-Wl,--version-script,{HERE / 'nothing.map'}"
        soname = "-Wl,-soname,libibverbs.so.1"
        compile_c(bare / "libibverbs.so.1", "-fPIC", "-shared", HERE / "nothing.c", soname, version_script)
        program = directory / "datapath"
        compile_c(program, HERE / "datapath.c", "-libverbs")
        bench = Bench(program, directory, {**os.environ, "LD_LIBRARY_PATH": str(bare)}, library)
        print_memory(bench)
        print("| call | QPs | MRs | moved | ns without | ns added | ratio | instructions added |")
        print("|---|---|---|---|---|---|---|---|")
        for call in options.calls:
            for sizes in SIZES[: 1 if options.quick else None]:
                for moved in (False, True):
                    base, added = bench.nanoseconds(call, sizes, options.pairs, moved=moved)
                    count = bench.instructions(call, sizes, moved=moved)
                    case = f"| {call} | {sizes[0]} | {sizes[1]} | {'yes' if moved else 'no'}"
                    print(
                        f"{case} | {base:.1f} | {added:+.1f} | {(base + added) / base:.2f} | {count:+.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
