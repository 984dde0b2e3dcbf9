"""The emulated rack: three virtual machines with the distribution's kernel and Soft-RoCE."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from .. import project
from ..errors import RackError
from ..plan import NODES, Node, write_whole
from ..rack import NodeStatus, Rack, side_by_side
from ..steps import console, step
from . import acceleration, network
from .acceleration import Accelerator
from .disk import NodeImage, build_node_image, node_image, remove_unused
from .emulator import build_emulator, emulator
from .machine import Machine, state_key
from .ssh import SshShell

BOOT_SNAPSHOT = "boot"
_ANSWER_SECONDS = 60
_BOOT_SECONDS = 300


class EmulatedRack(Rack):
    """Three QEMU machines."""

    kind = "emulated"
    offers = frozenset({"kernel-rdma", "netem", "own-kernel", "power"})

    @property
    def image(self) -> NodeImage:
        """The image the machines were made from; if there are none, the one that `up` will make them from."""
        origin = self._made_from()
        return NodeImage(origin.parent) if origin else node_image(self.places)

    @property
    def _origin(self) -> Path:
        return self.places.disks / "origin"

    def _made_from(self) -> Path | None:
        """The machines' image, and in it the name of the QEMU whose state their snapshots hold."""
        with contextlib.suppress(OSError):
            return Path(self._origin.read_text())
        return None

    @cached_property
    def accelerator(self) -> Accelerator:
        """What the machines run on; probed once per build directory and boot of this host."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        answer = self.places.build / "accelerator"
        with contextlib.suppress(OSError, ValueError):
            known_boot, known_name = answer.read_text().split()
            if known_boot == boot:
                return (
                    acceleration.KVM
                    if known_name == acceleration.KVM.name
                    else acceleration.emulation("probed before")
                )
        chosen = acceleration.choose(emulator(self.places), self.image.kernel)
        console.print(f"  machines run under {chosen.name}: {chosen.reason}")
        write_whole(answer, f"{boot} {chosen.name}\n")
        return chosen

    def machine(self, node: Node) -> Machine:
        """The QEMU process of ``node``."""
        return Machine(self.places, node, self.image)

    def shell(self, node: Node) -> SshShell:
        """Root's shell on ``node``."""
        return SshShell(self.places, node, self.image)

    def up(self, nodes: Sequence[Node] = NODES) -> None:
        """Bring up what is not up; build what is not built. A second call finds everything done."""
        if os.geteuid() != 0:
            raise RackError("the rack makes network namespaces and taps: run it as root")
        start = time.monotonic()
        with self._alone():
            with ThreadPoolExecutor() as pool:
                qemu = pool.submit(build_emulator, self.places)
                image = build_node_image(self.places)
                qemu.result()
            origin = image.directory / state_key(emulator(self.places), self.accelerator)
            if self._made_from() != origin:
                self._discard()
            self.places.disks.mkdir(parents=True, exist_ok=True)
            write_whole(self._origin, str(origin))
            remove_unused(self.places)
            network.create(self.places)
            built = project.prepare(self.places)
            side_by_side(nodes, lambda node: self._bring_up(node, image, built))
        console.print(f"[green]the rack is up[/green] after {time.monotonic() - start:.0f} s")

    def _bring_up(self, node: Node, image: NodeImage, built: Path) -> None:
        if self.machine(node).has_snapshot(BOOT_SNAPSHOT):
            self._continue(node)
        else:
            self._make(node, image, built)

    def _continue(self, node: Node) -> None:
        """Have a node that was made before run."""
        machine = self.machine(node)
        if machine.pid:
            return
        with step(f"continuing {node.name} from its snapshot"):
            self._forget_connection(node)
            machine.start(self.accelerator, BOOT_SNAPSHOT)
            self._wake(node)

    def _make(self, node: Node, image: NodeImage, built: Path) -> None:
        """Boot a node, install the project on it and take the snapshot that `reset` goes back to.

        It boots, rather than being a copy of a machine that has, because a boot ID cannot be changed afterwards: what
        takes two machines with one boot ID for one machine (UCX does) must find three.
        """
        machine = self.machine(node)
        machine.stop()  # begun by a command that was interrupted
        with step(f"booting {node.name}"):
            machine.create_disk(image.disk)
            self._forget_connection(node)
            machine.start(self.accelerator)
            self._wait_until_booted(node)
            self._see_that_no_unit_failed(node)
        with step(f"installing the project on {node.name}"):
            project.install(self.shell(node), built)
        with step(f"snapshot of {node.name}"):
            self.shell(node).disconnect()
            machine.save(BOOT_SNAPSHOT)

    def _forget_connection(self, node: Node) -> None:
        """What led to the machine that was called ``node`` leads nowhere now."""
        self.shell(node).disconnect()
        network.forget_neighbour(self.places, node.management_address)

    def _wait_until_booted(self, node: Node) -> None:
        """Wait until systemd has started what it starts, Docker among it."""
        shell = self.shell(node)
        shell.wait(_BOOT_SECONDS, self.machine(node).console)
        shell.run("systemctl", "is-system-running", "--wait", timeout=_BOOT_SECONDS, check=False)

    def _see_that_no_unit_failed(self, node: Node) -> None:
        failed = (
            self.shell(node)
            .run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
            .stdout.strip()
        )
        if failed:
            raise RackError(f"{node.name}: after its first boot systemd has failed units:\n{failed}")

    def _discard(self) -> None:
        """The recipe has changed since these machines were made: they go."""
        for node in NODES:
            self.shell(node).disconnect()
            self.machine(node).stop()
        shutil.rmtree(self.places.disks, ignore_errors=True)

    def _wake(self, node: Node) -> None:
        """After a snapshot was loaded: wait for ssh, and bring the clock to the present."""
        shell = self.shell(node)
        shell.wait(_ANSWER_SECONDS, self.machine(node).console)
        shell.run("date", "-s", f"@{time.time():.3f}")

    def install(self) -> None:
        """Put this working tree's build on every node that does not run it yet."""
        with self._alone():
            with step("building the wheel"):
                built = project.prepare(self.places)
            with step("installing it on every running node"):
                self._everywhere(lambda node: self._install(node, built))

    def reset(self) -> None:
        """Every node back to its snapshot, with this working tree's build."""
        with self._alone():
            if not any(map(self.running, NODES)):
                raise RackError("no node runs: there is nothing to reset; `lab/rack up` first")
            with step("resetting every node"):
                self._everywhere(self._reset)
            built = project.prepare(self.places)
            with step("installing the working tree where it has changed"):
                self._everywhere(lambda node: self._install(node, built))

    def _reset(self, node: Node) -> None:
        machine = self.machine(node)
        self.shell(node).disconnect()
        network.heal(self.places, node)
        machine.load(BOOT_SNAPSHOT)
        self._wake(node)

    def down(self) -> None:
        """Stop the machines and remove the network; disks and images stay for the next `up`."""
        with self._alone():
            for node in NODES:
                self.shell(node).disconnect()
                self.machine(node).stop()
            network.destroy(self.places)
            shutil.rmtree(self.places.run, ignore_errors=True)

    def status(self) -> list[NodeStatus]:
        """What every node is doing now."""
        up = network.exists(self.places)

        def look(node: Node) -> NodeStatus:
            running = up and self.machine(node).pid is not None
            return NodeStatus(
                node.name,
                running,
                node.management_address,
                node.data_address,
                up and network.partitioned(self.places, node),
                project.installed_state(self.shell(node)) if running else "",
            )

        with ThreadPoolExecutor() as pool:
            return list(pool.map(look, NODES))

    def partition(self, node: Node) -> None:
        """Cut ``node`` off the data network."""
        network.partition(self.places, node)

    def heal(self, node: Node) -> None:
        """Undo `partition` and `netem`."""
        network.heal(self.places, node)
        self.shell(node).run("sh", "-c", "tc qdisc del dev rd0 root 2>/dev/null || :")

    def netem(self, node: Node, arguments: Sequence[str]) -> None:
        """Delay, lose, reorder … what ``node`` sends on the data network; ``arguments`` are tc-netem(8)'s."""
        self.shell(node).run("tc", "qdisc", "replace", "dev", "rd0", "root", "netem", *arguments)

    def power_off(self, node: Node) -> None:
        """The machine ends at once: what its kernel has not written to its disk is lost."""
        self.shell(node).disconnect()
        self.machine(node).stop()

    def boot(self, node: Node, uptime: int | None = None) -> None:
        """Boot the machine from its disk; returns when systemd has started what it starts."""
        if uptime is not None:
            raise self._does_not_offer("uptime", node)
        if not self.running(node):
            self._forget_connection(node)
            self.machine(node).start(self.accelerator)
        self._wait_until_booted(node)

    def running(self, node: Node) -> bool:
        """Whether the machine runs."""
        return self.machine(node).pid is not None

    def logs(self, node: Node) -> str:
        """The node's journal, or its console if it does not answer."""
        if self.running(node):
            result = self.shell(node).run("journalctl", "--no-pager", "-b", check=False)
            if result.returncode == 0:
                return result.stdout
        try:
            return self.machine(node).console.read_text(errors="replace")
        except FileNotFoundError as exc:
            raise RackError(
                f"{node.name} has not run since the last `lab/rack down`: there is nothing to print"
            ) from exc
