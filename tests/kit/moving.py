"""Movers on the hosts of a `Cluster`: their agents and streams are real, engines and the low-level runtime are not."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster import Cluster, Host
from free_port import free_port
from moves import Move

from migrrdma_runtime.base.config import Config
from migrrdma_runtime.base.errors import CheckpointError, EngineError, MigrRDMAError
from migrrdma_runtime.engine.description import Description, Obstacle
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.mounts import Mount
from migrrdma_runtime.mover.daemon import Daemon, ThisHost
from migrrdma_runtime.mover.dump import LowLevel
from migrrdma_runtime.wire.mover_client import Mover

IMAGE = f"sha256:{'1' * 64}"
ALWAYS = {"Name": "always", "MaximumRetryCount": 0}


@dataclass
class Made:
    """A container of the fake engine."""

    id: str
    layer: Path
    running: bool = False
    name: str = "web"
    auto_remove: bool = False
    restart: dict[str, Any] = field(default_factory=lambda: {"Name": "no", "MaximumRetryCount": 0})


class FakeEngine:
    """Keeps what it is told; it starts a container as an engine does that has our runtime create it."""

    name = "docker"

    def __init__(self, host: MovingHost) -> None:
        self._host = host
        self.made: dict[str, Made] = {}
        self.obstructed: list[Obstacle] = []
        self.images = {IMAGE}
        self.loaded = b""
        self.volumes: dict[str, Path] = {}
        self.refuses: set[str] = set()
        """Of its methods, those that fail."""

    def container(self, name: str) -> Container:
        self._may("container")
        if name not in self.made:
            raise EngineError(f"No such container: {name}")
        one = self.made[name]
        pid = os.getpid() if one.running else 0
        return Container(one.id, one.name, "migrrdma", one.running, pid=pid, auto_remove=one.auto_remove)

    def knows(self, container_id: str) -> bool:
        self._may("knows")
        return container_id in self.made

    def containers(self) -> list[Container]:
        return [self.container(one) for one in self.made]

    def adopts(self, _container: Container) -> bool:
        return True

    def place(self, container: Container, _checkpoint: str, staged: Path) -> Path:
        return staged / container.id

    def describe(self, container: Container) -> Description:
        restart = self.made[container.id].restart
        return Description("docker", "web", "nginx", IMAGE, {"Volumes": [*self.volumes]}, restart)

    def obstacles(self, wanted: Description) -> list[Obstacle]:
        lacking = [one for one in wanted.create.get("Volumes", []) if one not in self.volumes]
        return [*self.obstructed, *(Obstacle(f"there is no {one}", "bring it", one) for one in lacking)]

    def mounts(self, _container: Container) -> list[Mount]:
        return [Mount(f"/mnt/{name}", path, name, writable=True) for name, path in self.volumes.items()]

    def remove_volume(self, name: str) -> None:
        shutil.rmtree(self.volumes.pop(name))

    def left_behind(self, _container: Container) -> list[Obstacle]:
        return []

    def create(self, wanted: Description) -> Container:
        self._may("create")
        made = Made(self._host.lands_in, self._host.home / "layer-there", name=wanted.name)
        made.layer.mkdir(exist_ok=True)
        for name in wanted.create.get("Volumes", []):
            self.volumes.setdefault(name, self._host.home / f"volume-there-{name}").mkdir(exist_ok=True)
        self.made[made.id] = made
        return self.container(made.id)

    def start(self, container: Container, _checkpoint: str) -> None:
        self._may("start")
        with Mover(str(self._host.host.config.run_dir)) as mover:
            mover.ask({"op": "awaited", "container": container.id})
        self._may("restore")
        staged = self._host.staged / container.id
        files = [one for one in staged.rglob("*") if one.is_file()]
        self._host.found = {str(one.relative_to(staged)): one.stat().st_size for one in files}
        self._host.restore()
        self.made[container.id].running = True
        shutil.rmtree(self._host.staged / container.id)

    def remove(self, container: Container) -> None:
        for one in list(self.made.values()):
            if container.id in (one.id, one.name):
                del self.made[one.id]

    def set_restart(self, container: Container, policy: dict[str, Any]) -> None:
        self.made[container.id].restart = policy

    def rename(self, container: Container, name: str) -> None:
        self._may("rename")
        self.made[container.id].name = name

    def kill(self, container: Container) -> None:
        self.made[container.id].running = False

    def low_level_root(self, _container: Container) -> Path:
        return self._host.home / "root"

    def layer(self, container: Container) -> Path:
        return self.made[container.id].layer

    def has_image(self, image_id: str) -> bool:
        return image_id in self.images

    def layers(self, _image_id: str) -> list[str]:
        return [IMAGE, IMAGE]

    def layers_here(self, layers: list[str]) -> int:
        return len(layers) - 1

    def save_image(self, image_id: str, reference: str, without: int = 0) -> Iterator[bytes]:
        assert (image_id, reference, without) == (IMAGE, "nginx", 1)
        yield b"layers " * 1000
        self._may("save_image")

    def load_image(self, chunks: Iterator[bytes], image_id: str) -> None:
        self.loaded = b"".join(chunks)
        self._may("load_image")
        self.images.add(image_id)

    def _may(self, what: str) -> None:
        if what in self.refuses:
            raise EngineError(f"{what} is refused")


class FakeLowLevel(LowLevel):
    """The runtime's checkpoint, as `Move` drives it; it knows whether the container stands still."""

    host: MovingHost

    async def why_no_rounds(self) -> str:
        return self.host.no_rounds

    async def marked(self) -> int:
        return self.host.marked.pop(0) if len(self.host.marked) > 1 else self.host.marked[0]

    async def dump_round(self, move: str, only_for: str, folder: Path, number: int) -> Path:
        del move, only_for
        if "dump_round" in self.host.engine.refuses:
            raise CheckpointError("dump_round is refused")
        images = folder / "images/rounds" / str(number)
        images.mkdir(parents=True)
        (images / "pages-1.img").write_bytes(bytes([number]) * 8192)
        if number > 1:
            (images / "parent").symlink_to(f"../{number - 1}")
        return images

    async def dump(self, move: str, only_for: str, folder: Path, *, keeps_tcp: bool, rounds: int = 0) -> None:
        del keeps_tcp
        if "dump" in self.host.engine.refuses:
            raise CheckpointError("dump is refused")
        (folder / "images").mkdir(parents=True, exist_ok=True)
        if rounds:
            (folder / "images/parent").symlink_to(f"rounds/{rounds}")
        (folder / "images/pages-1.img").write_bytes(b"pages" * 1000)
        self.host.is_frozen = True
        # To its end, also if this one is cancelled: as the real one.
        dumping = asyncio.ensure_future(self.host.move.checkpoint(move=move, only_for=only_for))
        try:
            await asyncio.shield(dumping)
        except asyncio.CancelledError:
            await dumping
            raise

    async def resume(self) -> None:
        self.host.is_frozen = False

    async def kill(self) -> None:
        await self.host.move.mover.kill()
        self.host.is_frozen = False


class MovingHost:
    """A host with a mover beside its agent."""

    def __init__(self, host: Host, move: Move, port: int, lands_in: str) -> None:
        host.config = replace(host.config, mover_port=port)
        self.host = host
        self.move = move
        self.lands_in = lands_in
        self.home = host.config.state_dir.parent
        self.staged = self.home / "staged"
        self.is_frozen = False
        self.no_rounds = ""
        """Why its memory cannot go ahead."""
        self.marked = [0, 5000, 5000, 0, 4900]
        """Bytes that are marked, each time it is asked, so that two rounds pay; the last ever after."""
        self.found: dict[str, int] = {}
        """What it was restored from here, and how large that is."""
        self.engine = FakeEngine(self)
        self.daemon: Daemon | None = None
        self._loop = asyncio.get_running_loop()
        here = self

        class Low(FakeLowLevel):
            host = here

        self._this = ThisHost(
            running=lambda name, _: (self.engine, self.engine.container(name)),
            engine=lambda _: self.engine,
            low_level=Low,
        )

    async def start(self) -> None:
        self.daemon = Daemon(self.host.config, Config({"staged_dir": str(self.staged)}), self._this)
        await self.daemon.start()

    async def stop(self) -> None:
        if self.daemon is not None:
            await self.daemon.stop()
            self.daemon = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def restore(self) -> None:
        """What the runtime does of a restore; in a thread."""
        restored = asyncio.run_coroutine_threadsafe(self.move.restore(self.host, held=True), self._loop)
        try:
            restored.result()
        except MigrRDMAError as error:
            raise EngineError(str(error)) from error

    def leftovers(self) -> list[str]:
        """What a move has made here and not removed."""
        folders = [self.staged, self.host.config.state_dir / "moves"]
        return [str(one) for folder in folders if folder.is_dir() for one in folder.iterdir()]


@dataclass
class Moving:
    """A container with RDMA that moves from one host to another, with its partner on a third."""

    move: Move
    src: MovingHost
    dst: MovingHost
    events: list[dict[str, Any]] = field(default_factory=list)
    at: dict[str, Callable[[], None]] = field(default_factory=dict)
    watched: Callable[[dict[str, Any]], None] = lambda _: None
    """Told of every event."""
    """What is done when a step begins."""

    @classmethod
    async def begin(cls, cluster: Cluster) -> Moving:
        move = await Move.begin(cluster)
        port = free_port()
        src, dst = (MovingHost(host, move, port, move.lands_in) for host in (move.src, move.dst))
        layer = src.home / "layer"
        (layer / "etc").mkdir(parents=True)
        (layer / "etc/changed").write_text("as it was last")
        src.engine.made["c1"] = Made("c1", layer, running=True, restart=ALWAYS)
        for one in (src, dst):
            await one.start()
        return cls(move, src, dst)

    async def end(self) -> None:
        for one in (self.src, self.dst):
            await one.stop()

    def options(self, **options: Any) -> dict[str, Any]:
        """What ``migrrdma migrate web dst`` asks for."""
        return {
            "container": "c1", "engine": "", "destination": self.move.dst.address, "dry_run": False,
            "keep_source": False, "with_volumes": False, "bandwidth": 0, "tcp": "keep", "rounds": 2,
            "max_downtime": 0, "timeout": 0,
            **options,
        }  # fmt: skip

    async def migrate(self, **options: Any) -> dict[str, Any]:
        """``migrrdma migrate web dst``."""
        assert self.src.daemon is not None
        return await self.src.daemon._departures.migrate(self.options(**options), self._watch)

    def with_a_volume(self) -> Path:
        """Give the container one that the other host has not got; where it is."""
        volume = self.src.home / "volume"
        volume.mkdir()
        (volume / "table").write_text("rows\n")
        self.src.engine.volumes["db"] = volume
        return volume

    def cancel(self) -> None:
        assert self.src.daemon is not None
        self.src.daemon._departures.cancel(self.events[0]["move"])

    def _watch(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.watched(event)
        if event.get("state") == "begun" and (action := self.at.pop(event["step"], None)):
            action()

    async def has_moved(self) -> None:
        """It runs there, and nothing is left of it here."""
        await self.move.both_go_on_after_the_move()
        assert not self.src.engine.made
        made = self.dst.engine.made["c2"]
        assert made.running
        assert made.name == "web"
        assert made.restart == ALWAYS
        assert (made.layer / "etc/changed").read_text() == "as it was last"
        assert not self.src.leftovers() + self.dst.leftovers()

    async def has_stayed(self) -> None:
        """It runs here as before, and nothing is left of it there."""
        await self.move.both_go_on_as_before()
        assert not self.src.is_frozen
        made = self.src.engine.made["c1"]
        assert made.running
        assert made.restart == ALWAYS
        assert not self.dst.engine.made
        assert not self.src.leftovers() + self.dst.leftovers()
