"""Print what the guest library adds to each call of the data path: nanoseconds, and instructions by callgrind."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "support"))

from guest_build import build, compile_c  # noqa: E402

CALLS = ("post_send", "post_recv", "poll_empty", "poll_full")


def nanoseconds(program: Path, call: str, env: dict[str, str]) -> float:
    """Per call: the median of several runs."""
    runs = [
        float(
            subprocess.run(
                [program, call, "5000000"], env=env, capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(7)
    ]
    return statistics.median(runs)


def instructions(program: Path, call: str, env: dict[str, str]) -> float:
    """Per call: what two runs of different length differ by."""
    totals = []
    for count in ("10000", "20000"):
        result = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, call, count],
            env=env, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = re.search(r"Collected : (\d+)", result.stderr)
        if found is None:
            raise SystemExit(f"callgrind did not count: {result.stderr}")
        totals.append(int(found[1]))
    return (totals[1] - totals[0]) / 10000


def main() -> None:
    """Build, run and print one line per call."""
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
        without = {**os.environ, "LD_LIBRARY_PATH": str(bare), "MIGRRDMA_SOCKET": "/nonexistent"}
        with_it = {**without, "LD_PRELOAD": str(library)}
        print(f"{'':12}{'ns without':>12}{'ns with':>12}{'instructions without':>22}{'with':>8}{'added':>8}")
        for call in CALLS:
            times = [nanoseconds(program, call, env) for env in (without, with_it)]
            counts = [instructions(program, call, env) for env in (without, with_it)]
            row = f"{call:12}{times[0]:12.2f}{times[1]:12.2f}{counts[0]:22.1f}{counts[1]:8.1f}"
            print(f"{row}{counts[1] - counts[0]:8.1f}")


if __name__ == "__main__":
    main()
