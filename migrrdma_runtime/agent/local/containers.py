"""Who a process is: its container by its cgroup, and what the container's processes hold.

Nothing here believes what a process says of itself. The kernel names the process at the other end of a
socket; its cgroup, compared with those of the containers' first processes (recorded.py), names the container.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.agent.local import memory_map
from migrrdma_runtime.agent.local.looks import Looks
from migrrdma_runtime.agent.local.memory_map import MemoryMap
from migrrdma_runtime.agent.local.recorded import Recorded
from migrrdma_runtime.agent.local.same_file import are_among, descriptors
from migrrdma_runtime.agent.local.shared_look import SharedLook
from migrrdma_runtime.base import kernel_file, paths, process_start
from migrrdma_runtime.base.escaping import printable


@dataclass(frozen=True)
class Process:
    """A process of this host."""

    pid: int
    command: str

    def __str__(self) -> str:
        """How a message names it."""
        return f"process {self.pid} ({self.command})"


@dataclass(frozen=True)
class ProcessId:
    """A process as no other will ever be named: numbers are given again, with another start."""

    pid: int
    started: str
    """As :meth:`Containers.started` has it."""


class Containers:
    """The containers that this host's runtime has recorded."""

    def __init__(
        self, run_dir: Path, proc: Path = Path("/proc"), verbs: Path = Path("/sys/class/infiniband_verbs")
    ) -> None:
        self._recorded = Recorded(run_dir / paths.CONTAINERS_DIR, proc)
        # Every process of the host is a file to read, and every container one: not in the agent's loop, which could do
        # nothing else for seconds while many containers are checkpointed, and not for each of them anew.
        self._counted = Recorded(run_dir / paths.CONTAINERS_DIR, proc)
        census = Looks(1)
        self._census = SharedLook(lambda: census.at("", self._count))
        self.looks = Looks()
        """What else is read of a container's processes is read by these: its time is the container's doing."""
        self._proc = proc
        self._verbs = verbs
        self.boot = self._boot()
        """Which boot of the host it is: its processes do not outlive it, an agent's records do."""

    def container_of(self, pid: int) -> str:
        """The id of the container that a process is in; "" when it is in none."""
        return self._recorded.container_of(pid)

    async def holders(self, container: str) -> list[Process]:
        """The processes of a container that have an RDMA device open."""
        # The open files last: to list those of every process of the host takes many times as long.
        inside = (await self._census()).get(container, [])
        return await self.looks.at(container, self._holders_among, inside)

    def only_inherits(self, pid: int, others: Iterable[int]) -> bool:
        """Whether every device that a process has open is the very open file of one of the others.

        So it is in the children of a program that forks: they have no context of their own, and most never use what
        they have inherited. Of one that does, nothing is known.
        """
        devices = self._devices()
        theirs = [(other, fd) for other in others for fd in self._device_files(other, devices)]
        return are_among([(pid, fd) for fd in self._device_files(pid, devices)], theirs)

    def memory_map(self, pid: int) -> MemoryMap | None:
        """What the process has mapped; None: it cannot be read."""
        return memory_map.read(self._proc, pid)

    def verbs_libraries(self, pid: int) -> tuple[str, ...]:
        """The files of a libibverbs that the process has mapped, under whatever name a wheel has given it."""
        return tuple(
            printable(path)
            for path in memory_map.files(self._proc, pid)
            if path.rpartition("/")[2].startswith("libibverbs")
        )

    def process(self, pid: int) -> Process:
        """The process, with its command's name as the kernel has it."""
        return Process(pid, printable(self._read(pid, "comm").rstrip("\n")) or "?")

    def process_of(self, thread: int) -> int:
        """The process of a thread, or of itself; 0: there is none."""
        for line in kernel_file.lines(f"{self._proc}/{thread}/status"):
            if line.startswith("Tgid:"):
                return int(line.split()[1])
        return 0

    def started(self, pid: int) -> str:
        """When the process started, as ``BOOT/TICKS``: with the pid, a name that is never used again.

        Empty: there is none, or only a zombie. What a dump has ended counts as ended though nobody has reaped it.
        """
        found = process_start.look(pid, str(self._proc))
        if found is None or found[0] in ("Z", "X"):
            return ""
        return f"{self.boot}/{found[1]}"

    def identify(self, pid: int) -> ProcessId:
        """The name of the process that has this number now."""
        return ProcessId(pid, self.started(pid))

    def is_alive(self, process: ProcessId) -> bool:
        """Whether it is this very process that has its number, and runs."""
        started = self.started(process.pid)
        return bool(started) and process.started in (
            started,
            started.rpartition("/")[2],
        )  # as older agents wrote

    def is_it(self, process: ProcessId | None, pid: int) -> bool:
        """Whether that number is this process's; any is, of one that an older agent has not written down."""
        return process is None or (process.pid == pid and self.is_alive(process))

    def goes_on(self, process: ProcessId) -> bool:
        """Whether it is alive, and nothing has killed it that it has not come to die of yet."""
        return self.is_alive(process) and not process_start.is_dying(process.pid, str(self._proc))

    def _boot(self) -> str:
        try:
            return (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""

    def _holders_among(self, pids: list[int]) -> list[Process]:
        devices = self._devices()
        return [self.process(pid) for pid in pids if self._device_files(pid, devices)]

    def _count(self) -> dict[str, list[int]]:
        return self._counted.processes(self._pids())

    def _pids(self) -> list[int]:
        return [int(path.name) for path in self._proc.glob("[0-9]*")]

    def _devices(self) -> set[int]:
        """The numbers of the devices through which RDMA is used: their nodes may have any name, and be anywhere."""
        found = set()
        for path in self._verbs.glob("*/dev"):
            try:
                major, _, minor = path.read_text().strip().partition(":")
                found.add(os.makedev(int(major), int(minor)))
            except (OSError, ValueError):
                continue  # gone meanwhile
        return found

    def _device_files(self, pid: int, devices: set[int]) -> list[int]:
        files = descriptors(str(self._proc), pid)
        # What has no path is no device; and those that have one are few.
        return [fd for fd, name in files.items() if name.startswith("/") and self._number(pid, fd) in devices]

    def _number(self, pid: int, fd: int) -> int:
        try:
            status = os.stat(f"{self._proc}/{pid}/fd/{fd}")  # noqa: PTH116 (no Path for each)
        except OSError:
            return -1  # closed meanwhile
        return status.st_rdev if stat.S_ISCHR(status.st_mode) else -1

    def _read(self, pid: int, name: str) -> str:
        try:
            return (self._proc / str(pid) / name).read_bytes().decode(errors="replace")
        except OSError:
            return ""
