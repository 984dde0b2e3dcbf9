#!/usr/bin/python3
"""What the OCI runtime costs a container: runs of runc alone, through the launcher, and through Python, in turn.

    sudo bench/shim.py [--pairs N] [--runtime PATH] [--instructions] [--rack]

They are called in turn, each first as often as the others, so that whatever else the machine does hits all alike.
Printed are medians, what is added to runc's and the ratio to it (medians over the pairs), and the peak memory of the
processes. Runs on the machine itself and needs root, runc, and this package installed where the interpreter that runs
this script finds it; what is measured is a temporary installation, unless ``--runtime`` names another.
``--instructions`` counts what the processor executes of ours before it is runc, by valgrind. With ``--rack``,
``docker run --rm`` is measured on a node of the rack as well, which must be up (``RACK=fast`` for the fast one).
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
    parser.add_argument("--python", default="/usr/bin/python3", help="the interpreter of Python's way")
    parser.add_argument("--runtime", type=Path, help="an installed migrrdma-runtime to measure instead")
    parser.add_argument("--instructions", action="store_true", help="count instructions, too")
    parser.add_argument("--rack", action="store_true", help="measure docker run --rm in the rack, too")
    options = parser.parse_args()

    runc = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin")
    if not runc or os.geteuid() != 0:
        sys.exit("bench/shim.py: needs root and runc")
    with tempfile.TemporaryDirectory(prefix="migrrdma-bench-") as name:
        folder = Path(name)
        runtimes = {"runc": runc} | (
            {"migrrdma-runtime": str(options.runtime)}
            if options.runtime
            else _install(folder, options.python)
        )
        if not options.runtime:
            _over_true(folder, options.pairs, runtimes)
        with _container(folder, runc) as (root, bundle):
            _compare("state of a container", options.pairs, runtimes, _state(root))
            _compare(
                "create + start + delete", max(options.pairs // 4, 5), runtimes, _lifecycle(root, bundle)
            )
            if options.instructions:
                _count_instructions(folder, root, options.python)
    if options.rack:
        in_docker = {"runc": "runc", "migrrdma-runtime": "migrrdma"}
        _compare("docker run --rm, on a rack node", max(options.pairs // 5, 5), in_docker, _docker_run())


def _install(folder: Path, python: str) -> dict[str, str]:
    """The launcher with its script, as ``migrrdma install`` lays them out, and the script alone."""
    import migrrdma_runtime
    from migrrdma_runtime.base import config, paths
    from migrrdma_runtime.host.install import launcher

    program = folder / Path(paths.RUNTIME).relative_to("/usr/local")
    script = folder / Path(paths.RUNTIME_SCRIPT).relative_to("/usr/local")
    for path in (program, script):
        path.parent.mkdir(parents=True)
    launcher.write(script, python)
    shutil.copy(Path(migrrdma_runtime.__file__).parent / "_data" / "launcher" / program.name, program)
    (folder / "config.toml").write_text(config.DEFAULT_TEXT)
    os.environ["MIGRRDMA_CONFIG"] = str(folder / "config.toml")
    return {"launcher": str(program), "Python": str(script)}


def _over_true(folder: Path, pairs: int, runtimes: dict[str, str]) -> None:
    """What is added when the low-level runtime is a program that is quicker and steadier than runc."""
    usual = os.environ["MIGRRDMA_CONFIG"]
    (folder / "true.toml").write_text('runtime = "/bin/true"\n')
    (folder / "config.json").write_text(json.dumps({"padding": "x" * 33_000}))
    os.environ["MIGRRDMA_CONFIG"] = str(folder / "true.toml")
    over_true = {name: "/bin/true" if name == "runc" else path for name, path in runtimes.items()}
    create = ["create", "--bundle", str(folder), "measured"]
    for title, args in (("state", ["state", "measured"]), ("create, a spec of 33 KB", create)):
        _compare(f"{title}, with /bin/true in runc's place", pairs, over_true, _plainly(args))
    os.environ["MIGRRDMA_CONFIG"] = usual


def _count_instructions(folder: Path, root: Path, python: str) -> None:
    """Count up to the exec of runc, which is made to fail for the launcher and left out for Python."""
    from migrrdma_runtime.host.install import launcher

    broken = folder / "runc"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    (folder / "broken.toml").write_text(f'runtime = "{broken}"\n')
    program = folder / "alone" / "bin" / "migrrdma-runtime"  # with no script to become instead
    program.parent.mkdir(parents=True)
    shutil.copy(folder / "bin" / program.name, program)
    script = folder / "ends.py"
    text = launcher.text(python).replace(
        "main()\n",
        "import os; from migrrdma_runtime.shim import lowlevel\nlowlevel.become = lambda *_: os._exit(0)\nmain()\n",
    )
    script.write_text(text)
    call = ["--root", str(root), "state", "measured"]
    print("instructions of ours, state of a container")
    for name, command, config in (
        ("launcher", [str(program), *call], "broken.toml"),
        ("Python", [python, "-ISXutf8", str(script), *call], "config.toml"),
    ):
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command],
            env=os.environ | {"MIGRRDMA_CONFIG": str(folder / config)},
            capture_output=True,
            text=True,
            check=False,
        )
        (line,) = [line for line in done.stderr.splitlines() if "Collected :" in line]
        print(f"  {name:<16} {int(line.split()[-1]):13,}")


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


def _plainly(args: list[str]) -> Measurement:
    return lambda runtime: _call([runtime, *args])


def _state(root: Path) -> Measurement:
    return _plainly(["--root", str(root), "state", "measured"])


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


def _compare(title: str, rounds: int, runtimes: dict[str, str], measure: Measurement) -> None:
    """Measure in turn and print one paragraph; the first of ``runtimes`` is what the others are held against."""
    names = list(runtimes)
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            results[name].append(measure(runtimes[name]))
    base = results[names[0]]
    print(f"{title} ({rounds} of each)")
    for name in names:
        milliseconds = statistics.median(seconds for seconds, _ in results[name]) * 1e3
        line = f"  {name:<16} {milliseconds:7.2f} ms{_mib(max(kib for _, kib in results[name]) / 1024)}"
        if name != names[0]:
            pairs = list(zip(base, results[name], strict=True))
            added = statistics.median((ours - theirs) * 1e3 for (theirs, _), (ours, _) in pairs)
            ratio = statistics.median(ours / theirs for (theirs, _), (ours, _) in pairs)
            line += f"  added {added:6.2f} ms  ratio {ratio:.3f}"
        print(line)


def _mib(mib: float) -> str:
    """A column of memory; empty where it was not measured."""
    return f"  {mib:5.1f} MiB" if mib else ""


if __name__ == "__main__":
    main()
