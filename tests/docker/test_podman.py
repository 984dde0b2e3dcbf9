"""A container of Podman's goes on from an imported checkpoint at its next plain ``podman start``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import workload
from migrrdma_lab.containers import COUNTER, carry, wait_for_line
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

_CHECKPOINTS = "/tmp/ck"
_RUNTIME = "--runtime=/usr/local/bin/migrrdma-runtime"


class _Podman:
    """The container ``web`` of Podman's on a node."""

    name = "web"

    def __init__(self, shell: Shell, options: list[str], command: list[str]) -> None:
        self.shell = shell
        self._definition = [_RUNTIME, "--name=web", *options, container_image("trixie"), *command]

    def podman(self, *words: str, check: bool = True) -> str:
        return self.shell.run("podman", *words, check=check).stdout.strip()

    def run(self) -> None:
        self.podman("run", "-d", *self._definition)

    def create(self) -> None:
        self.podman("create", *self._definition)

    def checkpoint(self) -> None:
        """By Podman's own command, into a folder as ``docker checkpoint create --checkpoint-dir`` makes one."""
        self.podman("container", "checkpoint", "--keep", "web")
        path = self.podman("inspect", "-f", "{{.State.CheckpointPath}}", "web")
        self.shell.sh(f"rm -rf {_CHECKPOINTS}; mkdir {_CHECKPOINTS}; cp -a {path} {_CHECKPOINTS}/move")

    def adopt(self, source: Shell) -> None:
        """Import what was dumped there and start."""
        self.shell.run("rm", "-rf", _CHECKPOINTS)
        carry(_CHECKPOINTS, "move", source, self.shell)
        said = self.shell.run("migrrdma", "checkpoint", "import", f"{_CHECKPOINTS}/move", "web").stdout
        assert "Next: podman start web" in said
        self.podman("start", "web")
        assert not self.shell.run("ls", "/var/lib/migrrdma/staged").stdout

    def remove(self) -> None:
        self.podman("rm", "-f", "-t", "0", "web", check=False)

    def lines(self) -> list[str]:
        return self.podman("logs", "web").splitlines()

    def wait_for_line(self, pattern: str, *, after: int = 0) -> None:
        wait_for_line(self, ("podman", "logs", "-f", "web"), pattern, 60, after)


Make = Callable[[list[str], list[str]], list[_Podman]]


@pytest.fixture
def make(src: Shell, dst: Shell) -> Iterator[Make]:
    """The same container on two nodes, of an image that Docker has there."""
    made: list[_Podman] = []
    for node in (src, dst):
        node.sh(f"docker save {container_image('trixie')} | podman load -q")
        node.sh("podman network create -d macvlan --subnet 10.78.0.0/24 -o parent=rd0 data")

    def both(options: list[str], command: list[str]) -> list[_Podman]:
        made.extend(_Podman(node, options, command) for node in (src, dst))
        return made

    yield both
    for one in made:
        one.remove()
    for node in (src, dst):
        node.run("podman", "network", "rm", "data")


def test_it_goes_on_once_and_then_begins_anew(src: Shell, make: Make) -> None:
    source, destination = make(["--network=none"], ["sh", "-c", COUNTER])
    source.run()
    destination.create()
    source.wait_for_line("^3$")
    source.checkpoint()
    last = int(source.lines()[-1])
    destination.adopt(src)
    destination.wait_for_line("^[0-9]+$", after=2)
    assert [int(line) for line in destination.lines()[:3]] == [last + 1, last + 2, last + 3]
    assert destination.podman("inspect", "-f", "{{.State.Status}}", "web") == "running"
    assert destination.podman("exec", "web", "echo", "inside") == "inside"
    destination.podman("stop", "-t", "0", "web")
    before = len(destination.lines())
    destination.podman("start", "web")
    destination.wait_for_line("^3$", after=before)
    assert destination.lines()[before : before + 3] == ["1", "2", "3"]


def test_its_rdma_connections_go_on(
    src: Shell, dst: Shell, tmp_path_factory: pytest.TempPathFactory, make: Make
) -> None:
    """Both ends of them are in the container: no address has to move with it."""
    built = workload.build(tmp_path_factory.mktemp("workload"))
    workload.build_both_ends(built)
    built.put(src, dst)
    for node in (src, dst):
        node.copy(str(built.both_ends), f":{workload.ON_NODE}/both_ends")
    options = [
        "--network=data",
        "--ip=10.78.0.150",
        "--tmpfs=/tmp",
        *src.rdma_options,
        f"--volume={workload.ON_NODE}:/mnt:ro",
        "-t",
    ]
    source, destination = make(
        options, ["/mnt/both_ends", "/tmp/server", "/dev/stdout", "rxe0", "-d", "rxe0"]
    )
    source.run()
    destination.create()
    source.wait_for_line(workload.RATE)
    source.checkpoint()
    destination.adopt(src)
    destination.wait_for_line(workload.RATE)
    destination.podman("kill", "--signal=TERM", "web")
    assert destination.podman("wait", "web") == "0"
    assert workload.judge(destination.lines()).ok
