"""A container of Podman's goes on elsewhere: from an imported checkpoint at its next plain start, or by one command."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import workload
from migrrdma_lab.containers import COUNTER
from migrrdma_lab.shell import Shell
from podman_container import PodmanContainer, give_image

Make = Callable[[list[str], list[str]], list[PodmanContainer]]


@pytest.fixture
def make(src: Shell, dst: Shell) -> Iterator[Make]:
    """The same container on two nodes, of an image that Docker has there."""
    made: list[PodmanContainer] = []
    for node in (src, dst):
        give_image(node)
        node.sh("podman network create -d macvlan --subnet 10.78.0.0/24 -o parent=rd0 data")

    def both(options: list[str], command: list[str]) -> list[PodmanContainer]:
        made.extend(PodmanContainer(node, options, command) for node in (src, dst))
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


@pytest.fixture
def both_ends(
    src: Shell, dst: Shell, tmp_path_factory: pytest.TempPathFactory, make: Make
) -> list[PodmanContainer]:
    """Of RDMA connections both ends are in the container: no address has to move with it."""
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
    ]
    return make(options, ["/mnt/both_ends", "/tmp/server", "/dev/stdout", "rxe0", "-d", "rxe0"])


def _ends_well(one: PodmanContainer) -> None:
    one.podman("kill", "--signal=TERM", "web")
    assert one.podman("wait", "web") == "0"
    assert workload.judge(one.lines()).ok


def test_its_rdma_connections_go_on(src: Shell, both_ends: list[PodmanContainer]) -> None:
    source, destination = both_ends
    source.run()
    destination.create()
    source.wait_for_line(workload.RATE)
    source.checkpoint()
    destination.adopt(src)
    destination.wait_for_line(workload.RATE)
    _ends_well(destination)


def test_it_moves_live_there_and_back_with_its_rdma_connections(
    src: Shell, dst: Shell, both_ends: list[PodmanContainer]
) -> None:
    source, destination = both_ends
    source.run()
    source.wait_for_line(workload.RATE)
    for here, to in ((source, destination), (destination, source)):
        here.shell.run(
            "migrrdma",
            "migrate",
            "web",
            to.shell.node.data_address,
            "--engine=podman",
            "--tcp=keep",
            timeout=300,
        )
        assert here.shell.run("podman", "container", "exists", "web", check=False).returncode == 1
        to.wait_for_line(workload.RATE)
        assert to.podman("inspect", "-f", "{{.State.Status}}", "web") == "running"
    _ends_well(source)
    for node in (src, dst):
        assert (
            not node.sh("ls /var/lib/migrrdma/staged /var/lib/migrrdma/agent/moves")
            .stdout.replace("/var/lib/migrrdma/staged:", "")
            .replace("/var/lib/migrrdma/agent/moves:", "")
            .strip()
        )
