"""One node of the fast rack: namespaces of this machine's kernel with Debian's systemd as their first process."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..errors import MachineError
from ..plan import NODES, Node
from . import cgroups, network
from .disk import Disk
from .keeping import Keeper, children, end
from .rdma_device import RdmaDevices
from .shell import NamespaceShell

_BOOT_NODE = Path(__file__).with_name("node") / "boot-node"
_BOOT_SECONDS = 60
_CLOCK_STEP_SECONDS = 100_000
"""How far apart the nodes' monotonic clocks are: hosts have not been booted at one time."""

# In the rack's namespaces. The second shell's first child is PID 1 of the node; the shell is gone at once, because
# systemd can hand out its cgroup's controllers only when it is the only process there.
_START = """
cgroup=$1 netns=$2 uptime=$3 console=$4; shift 4
mkdir -p "$cgroup"
echo $$ >"$cgroup/cgroup.procs"
exec nsenter --net="$netns" \
  unshare --mount --uts --ipc --cgroup --pid --time --monotonic "$uptime" --boottime "$uptime" \
  --propagation private sh -euc '"$@" >"$0" 2>&1 </dev/null &' "$console" "$@"
"""


@dataclass(frozen=True)
class Host:
    """A node, running or not."""

    keeper: Keeper
    node: Node

    @property
    def disk(self) -> Disk:
        """Its disk."""
        return Disk(self.keeper, self.node)

    @property
    def shell(self) -> NamespaceShell:
        """Root's shell on it."""
        return NamespaceShell(self.keeper.places, self.node, self.init)

    @property
    def console(self) -> Path:
        """What could not be written to its journal."""
        return self.keeper.places.run / f"{self.node.name}.console"

    @property
    def _network(self) -> Path:
        return self.keeper.base / self.node.name / "net"

    @property
    def _cgroup(self) -> Path:
        return self.keeper.cgroup / self.node.name

    def init(self) -> int | None:
        """Its first process, by this machine's reckoning, if it runs."""
        keeper = self.keeper.pid
        mine = f"/{self.keeper.cgroup_name}/{self.node.name}/"
        for child in children(keeper) if keeper else ():
            with contextlib.suppress(OSError):
                if f"{mine}" in f"{Path(f'/proc/{child}/cgroup').read_text().rpartition('0::')[2].strip()}/":
                    return child
        return None

    def boot(self, devices: RdmaDevices | None = None, uptime: int | None = None) -> None:
        """Start it from its disk, with its one of ``devices``; returns when systemd has started everything.

        Its monotonic and boot clocks are ``uptime`` seconds ahead of this machine's; by default each node's differ.
        """
        network.plug_in(self.keeper, self.node, self._network)
        if devices:
            devices.follow(self.node, self._network)
        notify = self.keeper.places.run / f"{self.node.name}.notify"
        notify.unlink(missing_ok=True)
        ahead = self.node.index % 10 * _CLOCK_STEP_SECONDS if uptime is None else uptime
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(notify))
            self.keeper.sh(
                _START, self.keeper.base / "cgroup" / self.keeper.cgroup_name / self.node.name, self._network,
                str(ahead), self.console, _BOOT_NODE, self.disk.root, self.node.name, str(uuid.uuid4()), notify,
                devices.folder(self.node) if devices else "",
            )  # fmt: skip
            self._wait_until_started(listener)
        notify.unlink()
        state = self.shell.run("systemctl", "is-system-running", check=False).stdout.strip()
        if state != "running":
            failed = self.shell.run("systemctl", "--failed", "--plain", "--no-legend", check=False).stdout
            raise MachineError(
                f"{self.node.name} has booted, but is {state}: {failed.strip()}; see `lab/rack --fast logs`"
            )

    def _wait_until_started(self, listener: socket.socket) -> None:
        """Hear systemd say READY=1, by the protocol of sd_notify(3); or see that its first process has ended."""
        deadline = time.monotonic() + _BOOT_SECONDS
        init = self.init()
        with contextlib.ExitStack() as stack:
            watched: list[int] = [listener.fileno()]
            if init is not None:
                watched.append(os.pidfd_open(init))
                stack.callback(os.close, watched[1])
            while True:
                ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
                if listener.fileno() in ready:
                    if b"READY=1" in listener.recv(4096).split(b"\n"):
                        return
                elif ready or init is None:
                    raise MachineError(f"{self.node.name} ended while it booted: {self._last_words()}")
                else:
                    raise MachineError(
                        f"{self.node.name} has not booted in {_BOOT_SECONDS} s; it runs on for you to look at: "
                        f"`lab/rack --fast ssh {self.node.name} systemctl list-jobs`"
                    )

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return self.console.read_text(errors="replace").strip()[-500:] or "it said nothing"
        return "it has no console"

    def power_off(self) -> None:
        """End every process on it at once, its network and its mounts; its disk stays as it is."""
        # First of all: of processes that are killed the kernel says to others that their connections are no more.
        network.cut(self.keeper, self.node)
        init = self.init()
        if init is not None:
            end(init)
        if self.node in NODES:
            RdmaDevices(self.keeper).unfollow(self.node)
        network.unplug(self.keeper, self.node, self._network)
        cgroups.remove(self._cgroup)

    def freeze(self) -> None:
        """Stop every process where it is; for the node no time passes until `thaw`, whose clocks then jump."""
        self._freeze("1")

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._freeze("0")

    def _freeze(self, value: str) -> None:
        (self._cgroup / "cgroup.freeze").write_text(value)
        deadline = time.monotonic() + _BOOT_SECONDS
        with (self._cgroup / "cgroup.events").open() as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while f"frozen {value}" not in events.read():
                if time.monotonic() > deadline:
                    raise MachineError(f"{self.node.name}: some process of it cannot be frozen or thawed")
                poll.poll(1000)
                events.seek(0)
