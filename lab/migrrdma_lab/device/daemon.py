"""The daemon that has the software devices of a rack's hosts: started once, found again by its control socket."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from migrrdma_lab.device.control import Control
from migrrdma_lab.errors import RackError

SOCKET = "verbs"
"""The socket's name in its folder."""
HOST_DIRECTORY, CONTAINER_DIRECTORY = "/run/rdma-device", "/dev/rdma-device"
"""Where the library looks for that folder; a container's /dev takes a mount whatever its root file system is."""
NODE = "/dev/infiniband/uverbs0"

_READY = 10
"""Seconds until the daemon listens, and until it has ended."""


def _harmless_device() -> tuple[str, str]:
    """Name and MAJOR:MINOR of a device that opens without an effect and that CRIU leaves to plugins.

    CRIU serves memory devices, terminals, tun and autofs by itself; every other character device it offers to its
    plugins, which ask sysfs what it is. Nothing can be said to /dev/fuse that was not mounted, nor to /dev/loop-control
    by who does not know its commands: an ioctl of verbs fails on both with ENOTTY or EINVAL.
    """
    known = dict(line.split()[::-1] for line in Path("/proc/misc").read_text().splitlines())
    for name in ("fuse", "loop-control"):
        if name in known:
            return name, f"10:{known[name]}"
    raise RackError(
        "the kernel has neither /dev/fuse nor /dev/loop-control: load the module fuse (modprobe fuse)"
    )


def node_number() -> str:
    """MAJOR:MINOR of what stands in for a uverbs device."""
    return _harmless_device()[1]


def own_node() -> str:
    """The machine's own node of that device, for a test outside of any rack."""
    return f"/dev/{_harmless_device()[0]}"


@dataclass(frozen=True)
class DeviceHost:
    """A host with one device.

    ``folder`` is where its socket is made; ``namespace`` a path of its network namespace, whose addresses of
    ``network`` the GID table follows; ``shown`` the folder that `sysfs.layout` made for the device; ``resources`` the
    socket at which the host's root learns whose the queue pairs are.
    """

    name: str
    folder: Path
    device: str = "rxe0"
    gids: Sequence[str] = ()
    namespace: str = ""
    network: str = ""
    shown: Path | None = None
    resources: Path | None = None
    first_qpn: int = 17
    first_key: int = 0x1000
    node: str = NODE

    def commands(self) -> Iterator[str]:
        """What tells the daemon of it."""
        yield f"host {self.name} {self.device} {self.folder / SOCKET} {self.node} {node_number()}"
        yield f"numbers {self.name} {self.first_qpn} {self.first_key}"
        if self.shown:
            yield f"show {self.name} {self.shown}"
        if self.resources:
            yield f"resources {self.name} {self.resources}"
        for index, gid in enumerate(self.gids):
            yield f"gid {self.name} {index} {gid}"
        if self.namespace:
            yield f"follow {self.name} {self.namespace} {self.network}"


class Daemon:
    """One running daemon; ``folder`` holds its control socket, its pid and its log.

    ``within`` is put before its command: what brings it into the namespaces of the processes that it serves.
    """

    def __init__(self, program: Path, folder: Path, within: Sequence[str] = ()) -> None:
        self._program = program
        self._folder = folder
        self._within = within
        self.control = Control(folder / "control")

    @property
    def log(self) -> Path:
        """What it has complained of."""
        return self._folder / "deviced.log"

    def start(self, hosts: Sequence[DeviceHost]) -> None:
        """Start it with these hosts; it outlives the caller. `RackError` with its words if it does not come up."""
        self._folder.mkdir(parents=True, exist_ok=True)
        commands = self._folder / "hosts"
        commands.write_text("".join(f"{line}\n" for host in hosts for line in host.commands()))
        ours, theirs = os.pipe()
        with self.log.open("wb") as log, os.fdopen(ours, "rb") as said:
            with os.fdopen(theirs, "wb") as standard_output:
                process = subprocess.Popen(
                    [*self._within, self._program, self.control.path, commands],
                    stdin=subprocess.DEVNULL, stdout=standard_output, stderr=log, start_new_session=True,
                )  # fmt: skip
            (self._folder / "pid").write_text(str(process.pid))
            readable, _, _ = select.select([said], [], [], _READY)
            if not readable or said.readline() != b"ready\n":
                process.kill()
                process.wait()
                words = self.log.read_text().strip() or "it says nothing"
                raise RackError(f"the daemon of software devices did not start: {words}")
        # It is not waited for: whoever starts it may be gone when it ends.
        process.returncode = 0

    def stop(self) -> None:
        """End it, and with it every device; nothing if it does not run."""
        try:
            pid = int((self._folder / "pid").read_text())
            handle = os.pidfd_open(pid)
        except (OSError, ValueError):
            return
        try:
            # The number may be another process's by now.
            if str(self.control.path) not in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
                return
            with contextlib.suppress(RackError):
                self.control.ask("stop")
            if not select.select([handle], [], [], _READY)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        finally:
            os.close(handle)
            (self._folder / "pid").unlink(missing_ok=True)
