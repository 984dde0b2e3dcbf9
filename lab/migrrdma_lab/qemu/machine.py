"""One virtual machine: a QEMU process, its disk with snapshots, and its control socket."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from qemu.qmp import QMPClient, QMPError

from ..bootstrap import recipe_key
from ..errors import MachineError
from ..plan import Node, Places
from .acceleration import Accelerator
from .disk import NodeImage
from .emulator import Emulator, emulator
from .network import tap

_MEMORY_MIB = 2048
_START_SECONDS = 120
_QMP_SECONDS = 120


def state_key(emulator: Emulator, accelerator: Accelerator) -> str:
    """Names what a snapshot's state depends on: this QEMU, accelerator, definition of a machine and processor.

    A snapshot holds QEMU's own state and how fast the processor's counter runs.
    """
    runs_on = (accelerator.name, accelerator.qemu_options)  # and not why: that is worded anew every time
    processor = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ][:1]
    return recipe_key(emulator.version(), str(runs_on), str(processor), Path(__file__).read_text())


@dataclass(frozen=True)
class Machine:
    """A node's QEMU process, running or not."""

    places: Places
    node: Node
    image: NodeImage

    @property
    def disk(self) -> Path:
        """A qcow2 overlay on the image's disk; snapshots of the running machine live inside it."""
        return self.places.disks / f"{self.node.name}.qcow2"

    @property
    def console(self) -> Path:
        """What the kernel and systemd print."""
        return self.places.run / f"{self.node.name}.console"

    @property
    def _pid_file(self) -> Path:
        return self.places.run / f"{self.node.name}.pid"

    @property
    def _qmp_socket(self) -> Path:
        return self.places.run / f"{self.node.name}.qmp"

    def create_disk(self, below: Path) -> None:
        """Make an empty overlay on the raw disk ``below``."""
        self.disk.parent.mkdir(parents=True, exist_ok=True)
        emulator(self.places).img(
            "create", "-q", "-f", "qcow2", "-b", str(below), "-F", "raw", str(self.disk)
        )

    def has_snapshot(self, name: str) -> bool:
        """Whether the machine's disk holds a snapshot called ``name``; QEMU lists one when it is complete."""
        if not self.disk.exists():
            return False
        listing = emulator(self.places).img("snapshot", "-U", "-l", str(self.disk))
        return any(line.split()[1:2] == [name] for line in listing.splitlines())

    def start(self, accelerator: Accelerator, snapshot: str | None = None) -> None:
        """Boot, or continue from ``snapshot``; returns when QEMU has loaded it and runs in the background."""
        self.places.run.mkdir(parents=True, exist_ok=True)
        log = self.places.run / f"{self.node.name}.qemu"
        command = [
            "ip", "netns", "exec", self.places.namespace,
            *emulator(self.places).system("-name", f"{self.places.namespace}-{self.node.name}"),
            "-machine", "q35", *accelerator.qemu_options, "-smp", "1", "-m", str(_MEMORY_MIB),
            "-nodefaults", "-display", "none", "-daemonize", "-pidfile", str(self._pid_file),
            "-serial", f"file:{self.console}", "-qmp", f"unix:{self._qmp_socket},server=on,wait=off",
            # Without it, a machine put back to its snapshot would draw the same "random" numbers again: a new
            # generation ID makes the kernel reseed.
            "-device", "vmgenid,guid=auto",
            # Memory the guest frees goes back to the host, and is not copied into snapshots.
            "-device", "virtio-balloon-pci,free-page-reporting=on",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd),
            "-append", "console=ttyS0 root=/dev/vda rw panic=1 mitigations=off quiet net.ifnames=0"
            f" rack.node={self.node.name},{self.node.index}",
            "-drive", f"file={self.disk},if=virtio,format=qcow2,cache=unsafe",
            *self._nic("mgmt"), *self._nic("data"),
            *(["-loadvm", snapshot] if snapshot else []),
        ]  # fmt: skip
        with log.open("wb") as output:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                timeout=_START_SECONDS, check=False,
            )  # fmt: skip
        if result.returncode:
            raise MachineError(f"{self.node.name}: QEMU did not start: {log.read_text().strip()[-500:]}")

    def _nic(self, bridge: str) -> list[str]:
        network = "77" if bridge == "mgmt" else "78"
        name = tap(bridge, self.node)
        return [
            "-netdev", f"tap,id={bridge},ifname={name},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev={bridge},mac=52:54:00:{network}:00:{self.node.index}",
        ]  # fmt: skip

    @property
    def pid(self) -> int | None:
        """The QEMU process, if this machine runs."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # A stale pid file may name a process that is not ours.
        return pid if str(self._pid_file).encode() in command else None

    def save(self, snapshot: str) -> None:
        """Snapshot the running machine, memory and disk."""
        self._monitor(f"savevm {snapshot}")

    def load(self, snapshot: str) -> None:
        """Put the running machine back to ``snapshot``."""
        self._monitor(f"loadvm {snapshot}")

    def stop(self) -> None:
        """End the machine at once, as pulling the plug does."""
        pid = self.pid
        if pid is None:
            return
        try:
            self._execute("quit")
        except (MachineError, OSError):
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while self.pid is not None:
            if time.monotonic() > deadline:
                raise MachineError(
                    f"{self.node.name}: QEMU (pid {pid}) is still there 20 s after being told to quit"
                )
            time.sleep(0.05)  # not our child: there is nothing to wait for but its disappearance

    def _monitor(self, line: str) -> None:
        answer = self._execute("human-monitor-command", {"command-line": line})
        if answer:
            raise MachineError(f"{self.node.name}: `{line}`: {str(answer).strip()}")

    def _execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        async def talk() -> object:
            client = QMPClient(self.node.name)
            await client.connect(str(self._qmp_socket))
            try:
                return await client.execute(command, arguments)
            finally:
                await client.disconnect()

        try:
            return asyncio.run(asyncio.wait_for(talk(), _QMP_SECONDS))
        except TimeoutError as exc:
            raise MachineError(
                f"{self.node.name}: QEMU did not answer `{command}` in {_QMP_SECONDS} s"
            ) from exc
        except (QMPError, OSError, EOFError) as exc:
            if command == "quit":  # it closes the connection, before or after it has answered
                return None
            raise MachineError(f"{self.node.name}: QEMU refused `{command}`: {exc}") from exc
