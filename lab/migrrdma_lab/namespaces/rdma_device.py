"""The RDMA devices of the fast rack's nodes: one daemon in the rack's namespaces, a folder for each node."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..bootstrap import recipe_key
from ..device import build, sysfs
from ..device.daemon import CONTAINER_DIRECTORY, HOST_DIRECTORY, NODE, Daemon, DeviceHost, node_number
from ..errors import BuildError, RackError
from ..filesystem import node_root, write_files
from ..plan import NODES, Node, Places
from ..steps import step
from .keeping import Keeper

DEVICE = "rxe0"
"""Its name is the emulated rack's, so that one test runs on either."""

_NETWORK = "10.78.0.0/24"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_APPEAR = Path(build.__file__).with_name("appear")
_APART = 100_003
"""How far apart the nodes' numbers of QPs begin; device numbers of two hosts are never the same for long."""


@dataclass(frozen=True)
class DeviceBuild:
    """What is built of the device: the daemon, and a layer over a node's system with the library as its libibverbs."""

    directory: Path

    @property
    def daemon(self) -> Path:
        """The daemon's program."""
        return self.directory / "deviced"

    @property
    def layer(self) -> Path:
        """The layer."""
        return self.directory / "layer"


def device_build(places: Places) -> DeviceBuild:
    """Where today's build is, or will be."""
    sources = hashlib.sha256()
    for path in (
        *sorted(p for p in build.SOURCES.rglob("*") if p.is_file()),
        Path(build.__file__),
        Path(__file__),
    ):
        sources.update(path.read_bytes())
    return DeviceBuild(places.disks / f"device-{recipe_key(node_root(places).name, sources.hexdigest())}")


def build_device(keeper: Keeper) -> DeviceBuild:
    """Build it, if it is not built."""
    places = keeper.places
    built = device_build(places)
    if built.directory.exists():
        return built
    places.disks.mkdir(parents=True, exist_ok=True)
    keeper.remove_unused("device-*")
    with (
        step("building the software RDMA device"),
        tempfile.TemporaryDirectory(dir=places.disks, prefix=".device-") as work,
    ):
        draft = DeviceBuild(Path(work) / "device")
        draft.layer.mkdir(parents=True, mode=0o755)
        build.build_daemon(draft.daemon)
        library = draft.layer / _LIBRARIES / _real_library(node_root(places))
        library.parent.mkdir(parents=True)
        build.build_library(library)
        tool = draft.layer / "usr/bin/rdma"
        tool.parent.mkdir(parents=True, exist_ok=True)
        build.build_tool(tool)
        write_files(draft.layer, {"etc/cdi/rack.json": _container_device(f"/{_LIBRARIES}/{library.name}")})
        draft.directory.rename(built.directory)
    return built


def _real_library(root: Path) -> str:
    """The file behind libibverbs.so.1 on a node."""
    found = root / _LIBRARIES / "libibverbs.so.1"
    if not found.exists():
        raise BuildError(f"{root} has no {_LIBRARIES}/libibverbs.so.1: is libibverbs1 among its packages?")
    return found.resolve().name


def _container_device(library: str) -> str:
    """What Docker and Podman put into a container with ``--device rack/rdma=all``, as a CDI specification.

    Of the device node alone a container could make nothing: it brings its own libibverbs, for a kernel with RDMA.
    """
    mounts = [
        {"hostPath": library, "containerPath": f"/{_LIBRARIES}/libibverbs.so.1", "options": ["ro", "rbind"]},
        {"hostPath": HOST_DIRECTORY, "containerPath": CONTAINER_DIRECTORY, "options": ["ro", "rbind"]},
    ]
    edits = {"deviceNodes": [{"path": NODE}], "mounts": mounts}
    devices = [{"name": "all", "containerEdits": edits}]
    return json.dumps({"cdiVersion": "0.5.0", "kind": "rack/rdma", "devices": devices})


@dataclass(frozen=True)
class RdmaDevices:
    """The daemon of a rack that is up, and its nodes' devices."""

    keeper: Keeper

    @property
    def _home(self) -> Path:
        return self.keeper.places.run / "device"

    def folder(self, node: Node) -> Path:
        """What ``node`` boots with: `appear` puts it into the node."""
        return self._home / node.name

    @property
    def daemon(self) -> Daemon:
        """The daemon, running or not."""
        program = device_build(self.keeper.places).daemon
        return Daemon(program, self._home, self.keeper.command([]))

    def start(self, built: DeviceBuild, *, anew: bool = False) -> None:
        """Start the daemon with a device for every node, unless it runs; ``anew``: if it is of another build, too.

        Whatever has a device open loses it then.
        """
        record = self._home / "build"
        if self.runs() and (not anew or record.read_text() == built.directory.name):
            return
        self.daemon.stop()
        shutil.rmtree(self._home, ignore_errors=True)  # of a rack that came to its end with its owner
        self._home.mkdir(parents=True)
        Daemon(built.daemon, self._home, self.keeper.command([])).start(
            [self._lay_out(node) for node in NODES]
        )
        record.write_text(built.directory.name)

    def runs(self) -> bool:
        """Whether the daemon answers."""
        with contextlib.suppress(RackError):
            self.daemon.control.ask("hosts")
            return True
        return False

    def _lay_out(self, node: Node) -> DeviceHost:
        folder = self.folder(node)
        (folder / "socket").mkdir(parents=True)
        shutil.copy(_APPEAR, folder / "appear")
        hardware = f"5054:00ff:fe78:00{node.index:02}"
        shown = sysfs.layout(folder / "sys", DEVICE, Path(NODE).name, node_number(), hardware)
        return DeviceHost(
            node.name, folder / "socket", DEVICE, [f"fe80::5054:ff:fe78:{node.index:x}"], shown=shown,
            resources=folder / "sys" / "resources",
            first_qpn=17 + node.index * _APART, first_key=(17 + node.index * _APART) << 8,
        )  # fmt: skip

    def follow(self, node: Node, namespace: Path) -> None:
        """From now on its GIDs are the addresses in its network namespace and its containers'."""
        self.daemon.control.ask("follow", node.name, str(namespace), _NETWORK)

    def unfollow(self, node: Node) -> None:
        """Let go of its network namespace, which would stay as long as the daemon listens in it."""
        if self.runs():
            self.daemon.control.ask("follow", node.name, "none")
