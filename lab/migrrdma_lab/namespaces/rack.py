"""The fast rack: three hosts made of namespaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import project
from ..docker_state import DockerState, build_docker_state, docker_state
from ..errors import RackError
from ..plan import DEFAULT_RELEASE, GOLDEN, NODES, Node, Places
from ..rack import NodeStatus, Rack, locked, side_by_side
from ..steps import console, step
from . import cgroups, layers, network, requirements
from .host import Host
from .keeping import Keeper
from .rdma_device import RdmaDevices, build_device, device_build
from .shell import NamespaceShell
from .system import build_system_layers, system_layers


class FastRack(Rack):
    """Three hosts of namespaces of this machine's own kernel.

    With an ``owner``, a process ID, the rack comes to its end with that process, however it ends; without, by `down`.
    """

    kind = "fast"
    offers = frozenset({"power", "disk", "freeze", "uptime"})

    def __init__(self, places: Places, owner: int | None = None) -> None:
        super().__init__(places)
        if places.release.name != DEFAULT_RELEASE:
            raise RackError(
                f"the fast rack runs {DEFAULT_RELEASE} only: the CRIU of {places.release.name} does not start on new "
                "kernels; the emulated rack has that release"
            )
        self.owner = owner
        self.keeper = Keeper(places)
        self.devices = RdmaDevices(self.keeper)

    def host(self, node: Node) -> Host:
        """The namespaces of ``node``."""
        return Host(self.keeper, node)

    def shell(self, node: Node) -> NamespaceShell:
        """Root's shell on ``node``."""
        return self.host(node).shell

    @contextlib.contextmanager
    def _mine(self) -> Iterator[None]:
        """One command at a time changes this rack; a second one waits, saying so."""
        self.places.make()
        lock = self.places.run.parent / f"{self.places.identity}.lock"
        with locked(lock, "another command that uses this rack"):
            yield

    def up(self, nodes: Sequence[Node] = NODES) -> None:
        """Bring up what is not up; build what is not built. A second call finds everything done.

        If it fails or is interrupted, a rack that was not up before is down again.
        """
        requirements.check()
        start = time.monotonic()
        with self._mine():
            was_up = self.keeper.pid is not None
            try:
                self._up(nodes)
            except BaseException:
                if not was_up:
                    self._down()
                raise
        console.print(f"[green]the fast rack is up[/green] after {time.monotonic() - start:.1f} s")

    def _up(self, nodes: Sequence[Node]) -> None:
        self.keeper.start(self.owner)
        network.create(self.keeper)
        self._see_that_devices_are_there()
        missing = [node for node in nodes if not self.running(node)]
        if not missing:
            return
        stack, docker = self._layers()
        self.devices.start(device_build(self.places))
        with step(f"starting {', '.join(node.name for node in missing)}"):
            side_by_side(missing, lambda node: self._start(node, stack, docker))

    def _see_that_devices_are_there(self) -> None:
        """A node that runs cannot be given another device: what it has mounted belongs to the daemon that has ended."""
        running = [node.name for node in NODES if self.running(node)]
        if running and not self.devices.runs():
            raise RackError(
                f"{', '.join(running)}: the daemon of their RDMA devices has ended "
                f"(its words: {self.devices.daemon.log}); `lab/rack --fast reset` makes nodes and devices anew"
            )

    def _layers(self) -> tuple[list[Path], DockerState]:
        """What today's nodes are made of; what is not built is built."""
        places = self.places
        below = system_layers(places)
        docker = docker_state(places)
        built = layers.project_layer(places, project.tree_state())
        # Whoever builds holds the lock on everything that is built, perhaps for minutes: not needed to use it.
        device = device_build(places)
        if all(path.exists() for path in (*below, docker.directory, built, device.directory)):
            return [built, device.layer, *below], docker
        with self._alone():
            places.disks.mkdir(parents=True, exist_ok=True)
            docker = build_docker_state(places)
            build_system_layers(places)
            wheel = project.prepare(places)
            built = layers.build_project_layer(self.keeper, docker, wheel, self._golden)
            return [built, build_device(self.keeper).layer, *system_layers(places)], docker

    @contextlib.contextmanager
    def _golden(self, stack: list[Path], docker: DockerState) -> Iterator[Host]:
        """A node of its own for as long as something is made on it."""
        host = self.host(GOLDEN)
        self._end(host)
        try:
            host.disk.make(stack, docker)
            host.boot()
            yield host
        finally:
            self._end(host)

    def _start(self, node: Node, stack: list[Path], docker: DockerState) -> None:
        """Make a new disk for ``node`` and boot it."""
        host = self.host(node)
        self._end(host)
        host.disk.make(stack, docker)
        project.put_certificate(self.places, node, self.keeper.outside(host.disk.root))
        host.boot(self.devices)

    def _end(self, host: Host) -> None:
        host.power_off()
        host.disk.remove()

    def down(self) -> None:
        """End every process of the rack, its mounts, networks and cgroups; images and layers stay."""
        with self._mine():
            self._down()

    def _down(self) -> None:
        self.keeper.stop()
        cgroups.remove_left_behind(self.keeper.cgroup_name)
        shutil.rmtree(self.places.run, ignore_errors=True)

    def reset(self) -> None:
        """Every node that is up is made and booted anew, with this working tree's build."""
        with self._mine():
            nodes = [node for node in NODES if self.keeper.pid and self.host(node).disk.exists()]
            if not nodes:
                raise RackError("no node is there to reset; `lab/rack --fast up` first")
            stack, docker = self._layers()
            self.devices.start(device_build(self.places), anew=True)
            with step("making every node anew"):
                side_by_side(nodes, lambda node: self._start(node, stack, docker))

    def install(self) -> None:
        """Put this working tree's build on every node that runs and has another."""
        with self._mine():
            with self._alone():
                wheel = project.prepare(self.places)
            self._everywhere(lambda node: self._install(node, wheel))

    def status(self) -> list[NodeStatus]:
        """What every node is doing now."""
        return [self._look(node) for node in NODES]

    def _look(self, node: Node) -> NodeStatus:
        running = self.running(node)
        return NodeStatus(
            node.name,
            running,
            "",
            node.data_address,
            running and network.partitioned(self.keeper, node),
            project.installed_state(self.shell(node)) if running else "",
        )

    def running(self, node: Node) -> bool:
        """Whether the node's first process runs."""
        return self.host(node).init() is not None

    def partition(self, node: Node) -> None:
        """Cut ``node`` off the data network."""
        network.partition(self.keeper, node)

    def heal(self, node: Node) -> None:
        """Undo `partition`."""
        network.heal(self.keeper, node)

    def power_off(self, node: Node) -> None:
        """Everything on ``node`` is killed at once; its disk stays, with all that was written."""
        with self._mine():
            self.host(node).power_off()

    def boot(self, node: Node, uptime: int | None = None) -> None:
        """Start ``node`` from its disk; its monotonic clock is ``uptime`` seconds ahead of this machine's."""
        host = self.host(node)
        with self._mine():
            if host.init() is not None:
                return
            if self.keeper.pid is None or not host.disk.exists():
                raise RackError(f"{node.name} has no disk to boot from: `lab/rack --fast up`")
            host.power_off()  # what is left if it ended by itself
            host.boot(self.devices, uptime)

    def fill_disk(self, node: Node) -> None:
        """From now on nothing more can be written on ``node``: ENOSPC; until `free_disk`."""
        self.host(node).disk.fill()

    def free_disk(self, node: Node) -> None:
        """Undo `fill_disk`."""
        self.host(node).disk.make_room()

    def freeze(self, node: Node) -> None:
        """Stop every process of ``node`` where it is, until `thaw`: to itself it is a clock that jumps."""
        self.host(node).freeze()

    def thaw(self, node: Node) -> None:
        """Undo `freeze`."""
        self.host(node).thaw()

    def logs(self, node: Node) -> str:
        """The journal of ``node`` since it booted."""
        return self.shell(node).run("journalctl", "--no-pager", "-b").stdout


def owned_by_this_process(places: Places) -> FastRack:
    """A rack that comes to its end with this process: what tests use."""
    return FastRack(places, os.getpid())
