#!/usr/bin/python3
"""What the OCI runtime costs a container: paired runs of ``migrrdma-runtime`` and of runc alone.

    sudo bench/shim.py [--pairs N] [--runtime PATH] [--rack]

The two are called in turn, so that whatever else the machine does hits both alike. Printed are medians, their
ratio and difference, and the peak memory of the processes. Runs on the machine itself and needs root, runc,
and this package installed where the interpreter that runs this script finds it; the launcher measured is a
temporary one, unless ``--runtime`` names another. With ``--rack``, ``docker run --rm`` is measured on a node
of the rack as well, which must be up.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Measurement = Callable[[str], tuple[float, int]]
"""Do it once with this runtime: seconds, and the peak memory in KiB of what was called."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100, help="how many times each is called (default: 100)")
    parser.add_argument(
        "--python", default="/usr/bin/python3", help="the interpreter of the temporary launcher"
    )
    parser.add_argument("--runtime", type=Path, help="an installed migrrdma-runtime to measure instead")
    parser.add_argument("--rack", action="store_true", help="measure docker run --rm in the rack, too")
    options = parser.parse_args()

    runc = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin")
    if not runc or os.geteuid() != 0:
        sys.exit("bench/shim.py: needs root and runc")
    with tempfile.TemporaryDirectory(prefix="migrrdma-bench-") as name:
        folder = Path(name)
        ours = options.runtime or _write_launcher(folder / "migrrdma-runtime", options.python)
        os.environ.setdefault("MIGRRDMA_CONFIG", str(folder / "none.toml"))
        with _container(folder, runc) as (root, bundle):
            _compare("state of a container", options.pairs, runc, str(ours), _state(root))
            _compare(
                "create + start + delete",
                max(options.pairs // 4, 5),
                runc,
                str(ours),
                _lifecycle(root, bundle),
            )
    if options.rack:
        _compare(
            "docker run --rm, on a rack node", max(options.pairs // 10, 5), "runc", "migrrdma", _docker_run()
        )


def _write_launcher(path: Path, python: str) -> Path:
    from migrrdma_runtime.host.install import launcher

    launcher.write(path, python)
    return path


@contextmanager
def _container(folder: Path, runc: str) -> Iterator[tuple[Path, Path]]:
    """A created container ``measured`` under its own root, and a bundle to make more of."""
    root, bundle = folder / "containers", folder / "bundle"
    rootfs = bundle / "rootfs"
    for name in ("proc", "dev", "sys"):
        (rootfs / name).mkdir(parents=True)
    needed = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True, check=True).stdout.split()
    for file in {"/bin/true", *(word for word in needed if word.startswith("/"))}:
        (rootfs / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, rootfs / file.lstrip("/"))
    subprocess.run([runc, "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["/bin/true"]}
    (bundle / "config.json").write_text(json.dumps(spec))
    _call([runc, "--root", str(root), "create", "--bundle", str(bundle), "measured"])
    try:
        yield root, bundle
    finally:
        _call([runc, "--root", str(root), "delete", "--force", "measured"])


def _state(root: Path) -> Measurement:
    return lambda runtime: _call([runtime, "--root", str(root), "state", "measured"])


def _lifecycle(root: Path, bundle: Path) -> Measurement:
    def measure(runtime: str) -> tuple[float, int]:
        globals_ = [runtime, "--root", str(root)]
        calls = [
            _call([*globals_, "create", "--bundle", str(bundle), "lifecycle"]),
            _call([*globals_, "start", "lifecycle"]),
            _call([*globals_, "delete", "--force", "lifecycle"]),
        ]
        return sum(seconds for seconds, _ in calls), max(memory for _, memory in calls)

    return measure


def _docker_run() -> Measurement:
    """Timed on the node itself: the way there is not what is measured, and the memory is dockerd's."""
    from migrrdma_lab.choice import choose_rack
    from migrrdma_lab.plan import SRC

    node = choose_rack().shell(SRC)
    script = (
        "start=$(date +%s%N); docker run --rm --runtime=$1 rdma-tools:trixie true; "
        "echo $(($(date +%s%N) - start))"
    )

    def measure(runtime: str) -> tuple[float, int]:
        return int(node.run("sh", "-euc", script, "run", runtime).stdout) / 1e9, 0

    measure("migrrdma")  # the first one finds nothing in the page cache
    return measure


def _call(command: list[str]) -> tuple[float, int]:
    """Run a command to its end, as little in the way as possible."""
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=null)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"bench/shim.py: failed: {' '.join(command)}")
    return seconds, usage.ru_maxrss


def _compare(title: str, pairs: int, theirs: str, ours: str, measure: Measurement) -> None:
    """Measure in pairs and print one paragraph."""
    results: dict[str, list[tuple[float, int]]] = {theirs: [], ours: []}
    for _ in range(pairs):
        for runtime, measured in results.items():
            measured.append(measure(runtime))
    medians = {
        runtime: statistics.median(s for s, _ in measured) * 1e3 for runtime, measured in results.items()
    }
    memory = {runtime: max(kib for _, kib in measured) / 1024 for runtime, measured in results.items()}
    added = statistics.median(
        (b - a) * 1e3 for (a, _), (b, _) in zip(results[theirs], results[ours], strict=True)
    )
    print(f"{title} ({pairs} pairs)")
    for name, runtime in (("runc", theirs), ("migrrdma-runtime", ours)):
        print(f"  {name:<16} {medians[runtime]:7.1f} ms{_mib(memory[runtime])}")
    print(
        f"  added            {added:7.1f} ms{_mib(memory[ours] - memory[theirs], memory[ours])}"
        f"  ratio {medians[ours] / medians[theirs]:.2f}"
    )


def _mib(mib: float, measured: float | None = None) -> str:
    """A column of memory; empty where it was not measured."""
    return f"  {mib:5.1f} MiB" if (mib if measured is None else measured) else ""


if __name__ == "__main__":
    main()
