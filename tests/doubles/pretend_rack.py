"""A rack whose machines are files and whose builds take no time: what is left are the lab's own steps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from migrrdma_lab import container_images, docker_state, filesystem, project, steps
from migrrdma_lab.plan import Node, Places
from migrrdma_lab.qemu import acceleration, disk, emulator, network, rack
from migrrdma_lab.qemu.disk import NodeImage
from migrrdma_lab.qemu.emulator import Emulator


@dataclass(frozen=True)
class Machine:
    """A machine that runs if its file is there; the file says what has become of it."""

    places: Places
    node: Node
    image: NodeImage

    @property
    def disk(self) -> Path:
        """Its snapshots, one to a line."""
        return self.places.disks / f"{self.node.name}.qcow2"

    @property
    def console(self) -> Path:
        """Never read."""
        return self.places.run / f"{self.node.name}.console"

    @property
    def memory(self) -> Path:
        """What the running machine is."""
        return self.places.run / f"{self.node.name}.memory"

    @property
    def pid(self) -> int | None:
        return 1 if self.memory.exists() else None

    def create_disk(self, below: Path) -> None:
        assert below.exists()
        self.disk.write_text("")

    def has_snapshot(self, name: str) -> bool:
        return self.disk.exists() and name in self._snapshots()

    def start(self, _accelerator: object, snapshot: str | None = None) -> None:
        assert self.image.disk.exists()
        assert self.pid is None
        self._become(self._snapshots()[snapshot] if snapshot else f"booted as {self.node.name}")

    def save(self, snapshot: str) -> None:
        self._store({**self._snapshots(), snapshot: self.memory.read_text()})

    def stop(self) -> None:
        self.memory.unlink(missing_ok=True)

    def note(self, what: str) -> None:
        """Something has happened inside."""
        self._become(f"{self.memory.read_text()}, {what}")

    def _become(self, state: str) -> None:
        draft = self.memory.with_suffix(".draft")  # a machine has no half-way states of this kind
        draft.write_text(state)
        draft.rename(self.memory)

    def _snapshots(self) -> dict[str, str]:
        return dict(line.split(": ", 1) for line in self.disk.read_text().splitlines())

    def _store(self, snapshots: dict[str, str]) -> None:
        draft = self.places.run / f"{self.node.name}.disk.draft"
        draft.write_text("".join(f"{name}: {state}\n" for name, state in snapshots.items()))
        draft.rename(self.disk)  # a snapshot is in QEMU's table or it is not


@dataclass(frozen=True)
class Shell:
    """What the lab does on a machine, as far as its state depends on it."""

    places: Places
    node: Node
    image: NodeImage

    def run(self, *words: str, **_options: object) -> SimpleNamespace:
        if words[:2] == ("sh", "-euc"):
            Machine(self.places, self.node, self.image).note("project installed")
        return SimpleNamespace(stdout="")

    def sh(self, *_arguments: object, **_options: object) -> SimpleNamespace:
        return SimpleNamespace(stdout="")

    def wait(self, _seconds: float, _console: Path) -> None: ...

    def copy(self, _source: str, _destination: str) -> None: ...

    def disconnect(self) -> None: ...


def _run_logged(command: Sequence[str | Path], log: Path, _timeout: float) -> None:
    """What the tools leave, without the tools."""
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(" ")
    last = Path(words[-1])
    if "mmdebstrap" in words and "--format=directory" in words:
        last.mkdir()
        for name in ("vmlinuz", "initrd.img"):
            (last / name).write_text(name)
        (last / "etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
        (last / "lib/modules/6.12").mkdir(parents=True)
        (last / "var/lib").mkdir(parents=True)
        (last / "usr/local/sbin").mkdir(parents=True)
        (last / "etc/containerd").mkdir()
        (last / "etc/containerd/config.toml").write_text("version = 2\n")
    elif "mmdebstrap" in words:
        last.write_text("layer")
    elif words[:2] == ["cp", "-al"]:
        shutil.copytree(words[-2], last, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
    elif words[0] == "unshare":
        storage = Path(words[words.index("sh", words.index("-euc")) + 3])
        (storage / "image").mkdir()
        (storage / "overlay2/layer/diff").mkdir(parents=True)
        (storage / "overlay2/layer/diff/file").write_text("of an image")
    elif words[0] == "mke2fs":
        Path(words[-2]).write_text("disk")
    elif words[0] == "ssh-keygen":
        last.write_text("private")
        last.with_suffix(".pub").write_text("public")
    elif "wheel" in words:
        (Path(words[words.index("-w") + 1]) / "migrrdma_runtime-0.whl").write_text("wheel")
    elif "init" in words:
        last.mkdir()
        for name in ("ca.key", "ca.crt"):
            (last / name).write_text(name)
    elif "issue" in words:
        authority = Path(words[words.index("--ca") + 1])
        for name in ("ca.key", "ca.crt"):
            assert (authority / name).read_text() == name
        for name in ("agent.key", "agent.crt", "ca.crt"):
            (Path(words[words.index("--out") + 1]) / name).write_text(name)


def pretend(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Have every rack of this process be a pretended one, below ``directory``."""
    monkeypatch.setenv("MIGRRDMA_LAB_DIR", str(directory / "build"))
    monkeypatch.setattr(Places, "run", property(lambda places: directory / "run" / places.identity))
    monkeypatch.setattr(rack, "Machine", Machine)
    monkeypatch.setattr(rack, "SshShell", Shell)
    for module in (container_images, docker_state, filesystem, disk, emulator, project):
        monkeypatch.setattr(module, "run_logged", _run_logged)
    for name in ("create", "forget_neighbour"):
        monkeypatch.setattr(network, name, lambda *_arguments: None)
    monkeypatch.setattr(Emulator, "version", lambda _emulator: "QEMU")
    monkeypatch.setattr(project, "tree_state", lambda: "0123456789abcdef")
    monkeypatch.setattr(
        acceleration, "choose", lambda _emulator, _kernel: acceleration.emulation("pretended")
    )
    monkeypatch.setattr(steps.console, "quiet", True)
