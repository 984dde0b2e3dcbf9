"""Print what the guest library adds to each call of the data path on a node's Soft-RoCE device, as a table.

Nanoseconds are medians of medians: of runs with and without the library in turn, and after objects have been rebuilt
in place. The machine is emulated and a send is a system call there, so that the ratios say more than the figures.
The rack must be up.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "kit"), str(ROOT / "lab")]

from guest_build import compile_c  # noqa: E402
from migrrdma_lab.choice import choose_rack  # noqa: E402
from migrrdma_lab.plan import SRC  # noqa: E402
from migrrdma_lab.shell import Shell  # noqa: E402
from remote_guest import RemoteGuest, put  # noqa: E402

CALLS = ("ibv_post_send", "ibv_post_recv", "ibv_poll_cq, one", "ibv_poll_cq, none")
PROGRAM = "/root/device"
LINES = 12
LINE = "^[0-9.]+ [0-9.]+ [0-9.]+ [0-9.]+$"

Figures = list[float]


def medians(lines: list[str]) -> Figures:
    """Call by call; the first line is of a cold cache."""
    columns = zip(*(map(float, line.split()) for line in lines[1:]), strict=True)
    return [statistics.median(column) for column in columns]


def without(shell: Shell, qps: int) -> Figures:
    """The device alone."""
    return medians(shell.run(PROGRAM, "rxe0", "1", str(qps), str(LINES), timeout=300).stdout.splitlines())


def with_library(shell: Shell, qps: int) -> tuple[Figures, Figures]:
    """Before its objects are rebuilt and after, in one run."""
    with RemoteGuest(shell, [PROGRAM, "rxe0", "1", str(qps), "0"]) as guest:
        guest.answer()  # HELLO
        guest.wait_for_line(LINE, 300, after=LINES - 1)
        before = guest.lines()
        rebuild(guest)
        begin = len(guest.lines()) + 1
        guest.wait_for_line(LINE, 300, after=begin + LINES - 1)
        after = guest.lines()[begin:]
        if guest.end():
            raise SystemExit(guest.diagnosis())
        return medians(before[:LINES]), medians(after[:LINES])


def rebuild(guest: RemoteGuest) -> None:
    """Give every object another number; each queue pair is connected with itself."""
    guest.ask("QUIESCE", {"timeout_ms": 60_000})
    guest.ask("PARK")
    (context,) = guest.ask("LIST_CONTEXTS")
    qps = guest.ask("REBUILD", {"context": context["context"], "device": "rxe0"})
    connections = [
        {"context": qp["context"], "vqpn": qp["vqpn"], "dest_pqpn": qp["next_pqpn"], "peer": 1, "dgid": qp["dgid"]}
        for qp in qps
    ]  # fmt: skip
    guest.ask("CONNECT", None, *connections)
    guest.ask("RESUME")


def main() -> None:
    """Measure and print one line per call and number of queue pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs (default: 5)")
    parser.add_argument("--qps", type=int, nargs="+", default=[1, 64], help="queue pairs (default: 1 64)")
    options = parser.parse_args()
    shell = choose_rack().shell(SRC)
    put(shell)
    with tempfile.TemporaryDirectory() as name:
        program = Path(name) / "device"
        compile_c(program, Path(__file__).with_name("device.c"), "-libverbs")
        shell.copy(str(program), f":{PROGRAM}")
    print("| call | QPs | ns without | ns added | ratio | moved: ns added | ratio |")
    print("|---|---|---|---|---|---|---|")
    for qps in options.qps:
        runs = [(without(shell, qps), *with_library(shell, qps)) for _ in range(options.pairs)]
        for at, call in enumerate(CALLS):
            base = statistics.median(run[0][at] for run in runs)
            plain, moved = (
                statistics.median(run[which][at] - run[0][at] for run in runs) for which in (1, 2)
            )
            print(
                f"| `{call}` | {qps} | {base:.0f} | {plain:+.0f} | {1 + plain / base:.2f} "
                f"| {moved:+.0f} | {1 + moved / base:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
