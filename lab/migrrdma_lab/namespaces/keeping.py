"""The rack's keeper as seen from this machine: started, found again by a later command, entered, stopped."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import MachineError, RackError
from ..plan import Places, write_whole

_PROGRAM = Path(__file__).with_name("keeper.py")
_START_SECONDS = 20
_STOP_SECONDS = 30

# The rack's own tmpfs hides the empty folder of the same name that this machine sees.
_SETUP = """
base=$1; shift
mount -t proc proc /proc
mount -t tmpfs -o mode=755,size=1m rack "$base"
mkdir "$base/cgroup"
# A second mount would set the hierarchy's options anew, for everybody (nsdelegate and others, cgroups(7)).
present=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)
if [ -n "$present" ]; then mount --bind "$present" "$base/cgroup"; else mount -t cgroup2 cgroup2 "$base/cgroup"; fi
cgroup=$base/cgroup/$1; shift
mkdir -p "$cgroup"
for controller in $(cat "$cgroup/cgroup.controllers"); do
  echo "+$controller" >"$cgroup/cgroup.subtree_control"
done
ip link set lo up
exec "$@" "$cgroup" "$OWNER"
"""


_begun: dict[Path, subprocess.Popen[bytes]] = {}
"""What this process has started and has to collect, by the rack's folder."""


@dataclass(frozen=True)
class Keeper:
    """The process whose mount, PID, network, UTS and IPC namespaces are the rack's."""

    places: Places

    @property
    def base(self) -> Path:
        """Where the rack's things are mounted, by its own reckoning; this machine sees an empty folder."""
        return self.places.run / "rack"

    @property
    def cgroup_name(self) -> str:
        """The rack's cgroup, below the root of the version 2 hierarchy."""
        return self.places.namespace

    @property
    def _record(self) -> Path:
        return self.places.run / "keeper"

    @property
    def pid(self) -> int | None:
        """The keeper's process ID here, if it runs."""
        with contextlib.suppress(OSError, ValueError):
            pid, started = self._record.read_text().split()
            if _started(int(pid)) == started:
                return int(pid)
        return None

    def outside(self, path: Path) -> Path:
        """Where this machine reaches what the rack calls ``path``."""
        return Path(f"/proc/{self._alive()}/root{path}")

    @property
    def cgroup(self) -> Path:
        """The rack's cgroup, as this machine reaches it."""
        return self.outside(self.base / "cgroup" / self.cgroup_name)

    def _alive(self) -> int:
        pid = self.pid
        if pid is None:
            raise RackError("the fast rack is not up: `lab/rack --fast up`")
        return pid

    def start(self, owner: int | None) -> None:
        """Start it, unless it runs. It ends with the process ``owner``, or with `stop` if that is None."""
        if self.pid is not None:
            return
        self.base.mkdir(parents=True, exist_ok=True)
        log = self.places.run / "keeper.log"
        with _pidfd(owner) as watched, log.open("wb") as errors:
            process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--propagation", "private",
                 "sh", "-euc", _SETUP, "keeper", str(self.base), self.cgroup_name,
                 sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,  # a terminal's Ctrl-C is for the command, which then ends the keeper in order
                pass_fds=[watched] if watched >= 0 else [],
                env={**os.environ, "OWNER": str(watched)},
            )  # fmt: skip
        _begun[self.base] = process
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with process.stdout as said:
            readable, _, _ = select.select([said], [], [], _START_SECONDS)
            if not readable or said.readline() != b"ready\n":
                process.kill()
                raise MachineError(f"the rack's keeper did not start: {log.read_text().strip()[-500:]}")
        (pid,) = children(process.pid)
        write_whole(self._record, f"{pid} {_started(pid)}\n")

    def command(self, words: Sequence[str]) -> list[str]:
        """The command that runs ``words`` in the rack's namespaces."""
        return [
            "nsenter",
            "-t",
            str(self._alive()),
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--ipc",
            "--",
            *words,
        ]

    def run(self, *words: str | Path, timeout: float = 60) -> str:
        """Run a command in the rack's namespaces and return what it printed; `MachineError` if it failed."""
        command = self.command([str(word) for word in words])
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
        if result.returncode:
            name = " ".join(str(word) for word in words[:4] if "\n" not in str(word))
            raise MachineError(f"in the rack's namespaces, `{name} …` failed: {result.stderr.strip()}")
        return result.stdout

    def sh(self, script: str, *words: str | Path, timeout: float = 60) -> str:
        """Run a shell script there, ``words`` being its ``$1``, ``$2`` and so on."""
        return self.run("sh", "-euc", script, "rack", *words, timeout=timeout)

    def remove_unused(self, pattern: str) -> None:
        """Remove the layers of this name that were built for this rack and of which no node of it has a mount."""
        pid = self.pid
        mounted = Path(f"/proc/{pid}/mounts").read_text() if pid else ""
        for former in self.places.disks.glob(pattern):
            if former.name not in mounted:
                shutil.rmtree(former)

    def stop(self) -> None:
        """End the keeper and everything in the rack; returns when all of it is gone."""
        pid = self.pid
        if pid is not None:
            with _pidfd(pid) as ended:
                os.kill(pid, signal.SIGTERM)
                if not _wait(ended, _STOP_SECONDS):
                    os.kill(pid, signal.SIGKILL)
                    if not _wait(ended, _STOP_SECONDS):
                        raise MachineError(f"the rack's keeper (pid {pid}) does not end, not even killed")
        self._record.unlink(missing_ok=True)
        if begun := _begun.pop(self.base, None):
            begun.wait(_STOP_SECONDS)


def children(pid: int) -> list[int]:
    """The children of a process; none if it has ended."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _started(pid: int) -> str:
    """When a process started, which tells it from a later one of the same number; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


@contextlib.contextmanager
def _pidfd(pid: int | None) -> Iterator[int]:
    if pid is None:
        yield -1
        return
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _wait(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def end(pid: int, seconds: float = _STOP_SECONDS) -> None:
    """Kill a process and wait until it is gone, as the init of a PID namespace is when its processes are."""
    with contextlib.suppress(ProcessLookupError), _pidfd(pid) as ended:
        os.kill(pid, signal.SIGKILL)
        if not _wait(ended, seconds):
            raise MachineError(f"process {pid} does not end in {seconds:.0f} s, though it was killed")
