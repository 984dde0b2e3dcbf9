"""A container of Podman's on a node, by the commands a user types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from migrrdma_lab.containers import carry, wait_for_line
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

OURS = "/usr/local/bin/migrrdma-runtime"

_CHECKPOINTS = "/tmp/ck"


def give_image(node: Shell) -> None:
    """Give the node's Podman the image that its Docker has."""
    node.sh(f"docker save {container_image('trixie')} | podman load -q")


@dataclass
class PodmanContainer:
    """One, as its command line describes it."""

    shell: Shell
    options: Sequence[str]
    command: Sequence[str]
    runtime: str = OURS
    before: Sequence[str] = ()
    """Options of Podman's own, before the word that says what to do."""
    name: str = "web"
    image: str = field(default_factory=lambda: container_image("trixie"))

    def podman(self, *words: str, check: bool = True) -> str:
        """What ``podman …`` prints on the node."""
        return self.shell.run("podman", *self.before, *words, check=check).stdout.strip()

    def run(self) -> None:
        self.podman("run", "-d", *self._definition())

    def full_id(self) -> str:
        return self.podman("inspect", "-f", "{{.Id}}", self.name)

    def create(self) -> None:
        self.podman("create", *self._definition())

    def checkpoint(self) -> None:
        """By Podman's own command, into a folder as ``docker checkpoint create --checkpoint-dir`` makes one."""
        self.podman("container", "checkpoint", "--keep", self.name)
        path = self.podman("inspect", "-f", "{{.State.CheckpointPath}}", self.name)
        self.shell.sh(f"rm -rf {_CHECKPOINTS}; mkdir {_CHECKPOINTS}; cp -a {path} {_CHECKPOINTS}/move")

    def adopt(self, source: Shell) -> None:
        """Import what was dumped there and start."""
        self.shell.run("rm", "-rf", _CHECKPOINTS)
        carry(_CHECKPOINTS, "move", source, self.shell)
        said = self.shell.run("migrrdma", "checkpoint", "import", f"{_CHECKPOINTS}/move", self.name).stdout
        assert f"Next: podman start {self.name}" in said
        self.podman("start", self.name)
        assert not self.shell.run("ls", "/var/lib/migrrdma/staged").stdout

    def remove(self) -> None:
        """It need not be there."""
        self.podman("rm", "-f", "-t", "0", self.name, check=False)

    def lines(self) -> list[str]:
        return self.podman("logs", self.name).splitlines()

    def wait_for_line(self, pattern: str, *, after: int = 0) -> None:
        """Wait for a line that is like the regular expression, behind the first ``after``."""
        wait_for_line(self, ("podman", "logs", "-f", self.name), pattern, 60, after)

    def _definition(self) -> list[str]:
        return [f"--runtime={self.runtime}", f"--name={self.name}", *self.options, self.image, *self.command]
