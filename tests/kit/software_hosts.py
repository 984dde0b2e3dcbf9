"""Two hosts with a software device each, served by one daemon, on this machine; each process has a /dev of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from migrrdma_lab.device.build import build_daemon, build_library
from migrrdma_lab.device.daemon import NODE, SOCKET, Daemon, DeviceHost, node_number

HOSTS = ("one", "two")
ADDRESSES = {"one": "10.78.0.1", "two": "10.78.0.2"}

# The device's node is put where a container has it, in a mount namespace that ends with the process.
_WITHIN = """
node=$1; number=$2; shift 2
mount -t tmpfs -o mode=755 dev /dev
for device in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "/dev/${device%:*}" c 1 "${device#*:}"; done
mkdir "$(dirname "$node")" /dev/shm
mknod -m 666 "$node" c "${number%:*}" "${number#*:}"
ln -s /proc/self/fd /dev/fd
ip link set lo up
exec "$@"
"""


class SoftwareHosts:
    """Hosts ``one`` and ``two``; `stop` ends the daemon."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        build_daemon(folder / "deviced")
        build_library(folder / "libibverbs.so.1")
        self.daemon = Daemon(folder / "deviced", folder / "run")
        self.control = self.daemon.control
        self._hosts = []
        for index, name in enumerate(HOSTS):
            (folder / name).mkdir()
            gids = [f"fe80::{index + 1}", ADDRESSES[name]]
            resources = self.resources(name)
            first = 17 + 5000 * index
            self._hosts.append(
                DeviceHost(name, folder / name, gids=gids, first_qpn=first, resources=resources)
            )
        self.start_daemon()

    def start_daemon(self) -> None:
        """Start the daemon, again if it was killed."""
        self.daemon.start(self._hosts)

    def resources(self, host: str) -> Path:
        """The socket at which the host's root learns whose the queue pairs are."""
        return self._folder / f"{host}.resources"

    def kill_daemon(self) -> None:
        """Kill the daemon, which gets to end nothing in order."""
        pid = int((self._folder / "run" / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def stop(self) -> None:
        """End the daemon; its complaints are a failure."""
        self.daemon.stop()
        assert not (self._folder / "one" / SOCKET).exists()
        assert self.daemon.log.read_text() == ""

    def start(
        self, host: str, *command: str | Path, enter: Sequence[str] = (), **options: str
    ) -> subprocess.Popen[str]:
        """A process on ``host``; ``options`` are for its environment. It has its standard input, and one output.

        ``enter``: a program and its arguments that it is started by.
        """
        environment = {
            **os.environ, "LD_LIBRARY_PATH": str(self._folder), "RDMA_DEVICE_DIR": str(self._folder / host), **options,
        }  # fmt: skip
        return subprocess.Popen(
            [*enter, "unshare", "--mount", "--propagation", "private", "sh", "-euc", _WITHIN, "within", NODE,
             node_number(), *map(str, command)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(
        self, host: str, *command: str | Path, seconds: float = 60, enter: Sequence[str] = ()
    ) -> tuple[int, str]:
        """Run a process to its end: its exit code and what it said."""
        with self.start(host, *command, enter=enter) as process:
            try:
                said, _ = process.communicate(timeout=seconds)
            finally:
                process.kill()
            return process.returncode, said

    def pair(self, command: Sequence[str], seconds: float = 120) -> tuple[str, str]:
        """A server on ``one``, its client on ``two``, both to their end; what each said. They must succeed.

        They have a network of their own: most such programs listen at a port that is always the same.
        """
        with self.start("one", *command, enter=["unshare", "--net"]) as server:
            try:
                _wait_until(lambda: _listens(server.pid), f"{command[0]} listens", server, seconds)
                network = ["nsenter", f"--net=/proc/{server.pid}/ns/net"]
                code, client = self.run("two", *command, "127.0.0.1", seconds=seconds, enter=network)
                said, _ = server.communicate(timeout=seconds)
            finally:
                server.kill()
        assert (code, server.returncode) == (0, 0), f"client: {client}\nserver: {said}"
        return said, client

    def wait_for_count(
        self, host: str, what: str, count: int, process: subprocess.Popen[str] | None = None
    ) -> None:
        """Wait until ``host`` has so many of ``what``, while ``process`` runs."""
        _wait_until(lambda: self.control.count(host, what) == count, f"{host} has {count} {what}", process)


def _wait_until(
    done: Callable[[], bool], what: str, process: subprocess.Popen[str] | None, seconds: float = 60
) -> None:
    """Look until it is so; neither the device's counters nor another process's sockets tell by themselves."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not in {seconds:.0f} s"
        assert process is None or process.poll() is None, f"{what}: {process and process.communicate()[0]}"
        time.sleep(0.02)


def _listens(pid: int) -> bool:
    """Whether the process has a TCP socket that listens."""
    listening = {
        fields[9]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A"
    }
    held = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(str(fd.readlink()))
    return any(f"socket:[{inode}]" in held for inode in listening)
