"""A container of Docker's under the names that a `RuntimeContainer` has for what is done to one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from migrrdma_lab import rdma
from migrrdma_lab.containers import Container, carry
from migrrdma_lab.shell import Shell

_CHECKPOINT = "move"

_TAKE_WHAT_IS_KEPT = f"""
mkdir -p {rdma.CHECKPOINTS}
kept=$(readlink /var/lib/migrrdma/agent/kept/* || :)
if [ ! -s {rdma.CHECKPOINTS}/{_CHECKPOINT}/inventory.img ] && [ -e "$kept" ]; then
  rm -rf {rdma.CHECKPOINTS}/partial {rdma.CHECKPOINTS}/{_CHECKPOINT}
  cp -r "$kept" {rdma.CHECKPOINTS}/partial
  mv {rdma.CHECKPOINTS}/partial {rdma.CHECKPOINTS}/{_CHECKPOINT}
fi
"""
"""What Docker has deleted although its application has ended (docs/operations.md)."""


@dataclass(frozen=True)
class DockerContainer:
    """It is moved by docker's commands, with its images outside of Docker's own folders."""

    container: Container
    staged: bool = False
    """Whether it is restored by a plain ``docker start``."""

    @property
    def shell(self) -> Shell:
        """Of the node that it is on."""
        return self.container.shell

    @property
    def name(self) -> str:
        """Docker's name for it, on every node."""
        return self.container.name

    def on(self, shell: Shell) -> DockerContainer:
        """The same container on another node."""
        return replace(self, container=self.container.on(shell))

    def prepare(self) -> DockerContainer:
        """Nothing that Docker does not do itself: `rdma.restore` makes what a restore needs."""
        return self

    def run(self) -> DockerContainer:
        """Start it."""
        rdma.join_data_network(self.shell)
        return replace(self, container=self.container.run())

    def checkpoint(self) -> None:
        """Dump it here."""
        self.shell.run("rm", "-rf", rdma.CHECKPOINTS)
        self.container.checkpoint(_CHECKPOINT, "--checkpoint-dir", rdma.CHECKPOINTS)

    def restore(self, destination: Shell) -> DockerContainer:
        """Carry its images to another node, and restore it there."""
        return self.carry_images(destination).restore_here()

    def carry_images(self, destination: Shell) -> DockerContainer:
        """Copy its images to another node; the container as it may be restored there."""
        destination.run("rm", "-rf", rdma.CHECKPOINTS)
        self.shell.sh(_TAKE_WHAT_IS_KEPT)
        carry(rdma.CHECKPOINTS, _CHECKPOINT, self.shell, destination)
        return self.on(destination)

    def restore_here(self) -> DockerContainer:
        """Restore it from the images that are here."""
        moved = rdma.restore_here(self.container, _CHECKPOINT, staged=self.staged)
        return replace(self, container=moved)

    @property
    def images(self) -> str:
        """The checkpoint's folder."""
        return f"{rdma.CHECKPOINTS}/{_CHECKPOINT}"

    def has_images(self) -> bool:
        """Whether there are any here: containerd has them in memory until Docker has them on its disk."""
        self.shell.sh(_TAKE_WHAT_IS_KEPT)
        inventory = f"{rdma.CHECKPOINTS}/{_CHECKPOINT}/inventory.img"
        return not self.shell.run("test", "-s", inventory, check=False).returncode

    def lines(self) -> list[str]:
        """What it has printed on this node."""
        return self.container.lines()

    def wait_for_line(self, pattern: str, seconds: float = 60, *, after: int = 0) -> None:
        """Wait until a line that matches ``pattern`` (a regular expression) follows the first ``after``."""
        self.container.wait_for_line(pattern, seconds, after=after)

    def remove(self) -> None:
        """End it and remove it; none is no error."""
        self.container.remove()
