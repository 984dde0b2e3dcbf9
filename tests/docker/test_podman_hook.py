"""Podman's containers have the guest library by its hook, whatever runtime Podman runs them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import workload
from migrrdma_lab.containers import Container, carry
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell
from podman_container import PodmanContainer, give_image

_CHECKPOINTS = "/tmp/ck"
_NO_HOOK = ("--hooks-dir=/nonexistent",)

Register = Callable[[Container], Container]
Make = Callable[[PodmanContainer], PodmanContainer]


@pytest.fixture(scope="module", autouse=True)
def _hook(dst: Shell, peer: Shell) -> None:
    """Podman has it from now on; to other tests' containers it makes no difference."""
    for node in (dst, peer):
        give_image(node)
        node.run("migrrdma", "install", "--engine", "podman")


@pytest.fixture(scope="module", autouse=True)
def _workload(src: Shell, dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    built = workload.build(tmp_path_factory.mktemp("workload"))
    workload.build_both_ends(built)
    built.put(src, dst, peer)


@pytest.fixture
def podmans() -> Iterator[Make]:
    """Register a container of Podman's for removal after the test."""
    made: list[PodmanContainer] = []

    def register(container: PodmanContainer) -> PodmanContainer:
        container.remove()  # what a killed test run left behind
        made.append(container)
        return container

    yield register
    for one in made:
        one.remove()


def _client(end: Container, node: Shell, runtime: str) -> PodmanContainer:
    """The end that Docker would have run, in a container of Podman's."""
    options = [
        "--network=host",
        *node.rdma_options,
        f"--volume={workload.ON_NODE}:{workload.IN_CONTAINER}:ro",
    ]
    return PodmanContainer(node, options, end.command, runtime)


def _move(server: Container, there: Shell) -> Container:
    for shell in (server.shell, there):
        shell.run("rm", "-rf", _CHECKPOINTS)
    server.checkpoint("move", "--checkpoint-dir", _CHECKPOINTS)
    destination = server.on(there).create()
    carry(_CHECKPOINTS, "move", server.shell, there)
    there.run("migrrdma", "checkpoint", "import", "--start", f"{_CHECKPOINTS}/move", server.name)
    return destination


# An address of its own each: the network still knows where it has seen the last one.
@pytest.mark.parametrize(("runtime", "number"), [("crun", 7), ("runc", 8)])
def test_what_such_a_container_is_connected_to_can_be_moved(
    src: Shell, dst: Shell, peer: Shell, podmans: Make, containers: Register, runtime: str, number: int
) -> None:
    client, server = workload.pair(dst, src, number=number)
    containers(server.on(dst))
    containers(server).run()
    partner = podmans(_client(client, peer, runtime))
    partner.run()
    partner.wait_for_line(workload.RATE)
    moved = _move(server, dst)
    for end in (partner, moved):
        end.wait_for_line(workload.RATE, after=len(end.lines()))
    moved.docker("kill", "--signal=TERM", moved.name)
    assert moved.docker("wait", moved.name).stdout.strip() == partner.podman("wait", partner.name) == "0"
    for end in (partner, moved):
        assert workload.judge(end.lines()).ok


def test_without_the_hook_it_cannot(
    src: Shell, dst: Shell, peer: Shell, podmans: Make, containers: Register
) -> None:
    client, server = workload.pair(dst, src, number=9)
    containers(server).run()
    partner = podmans(_client(client, peer, "crun"))
    partner.before = _NO_HOOK
    partner.run()
    partner.wait_for_line(workload.RATE)
    with pytest.raises(NodeCommandError) as refusal:
        server.checkpoint("move")
    assert "guest" in refusal.value.stderr
    partner.wait_for_line(workload.RATE, after=len(partner.lines()))


@pytest.fixture
def network(dst: Shell, peer: Shell) -> Iterator[str]:
    """One that an address can move in."""
    for node in (dst, peer):
        node.sh("podman network create -d macvlan --subnet 10.78.0.0/24 -o parent=rd0 data")
    yield "data"
    for node in (dst, peer):
        node.run("podman", "network", "rm", "-f", "data")


def test_what_runc_has_made_is_dumped_by_our_runtime_and_goes_on_under_it(
    dst: Shell, peer: Shell, podmans: Make, network: str
) -> None:
    """Not by Podman's command, which calls the runtime that the container was made with."""
    options = [
        f"--network={network}", "--ip=10.78.0.151", "--tmpfs=/tmp", *peer.rdma_options,
        f"--volume={workload.ON_NODE}:/mnt:ro", "-t",
    ]  # fmt: skip
    command = ["/mnt/both_ends", "/tmp/server", "/dev/stdout", "rxe0", "-d", "rxe0"]
    source = podmans(PodmanContainer(peer, options, command, "runc"))
    destination = podmans(PodmanContainer(dst, options, command))
    source.run()
    source.wait_for_line(workload.RATE)
    with pytest.raises(NodeCommandError):
        source.checkpoint()
    source.wait_for_line(workload.RATE, after=len(source.lines()))
    peer.run("rm", "-rf", _CHECKPOINTS)
    peer.run(
        "migrrdma-runtime", "--root", "/run/runc", "checkpoint", "--image-path", f"{_CHECKPOINTS}/move",
        source.full_id(),
    )  # fmt: skip
    source.podman("wait", source.name)
    # It is the application now: the hook lets nobody start a second one.
    with pytest.raises(NodeCommandError, match="migrrdma-inject-guest"):
        source.podman("start", source.name)
    destination.create()
    destination.adopt(peer)
    destination.wait_for_line(workload.RATE)
    destination.podman("kill", "--signal=TERM", destination.name)
    assert destination.podman("wait", destination.name) == "0"
    assert workload.judge(destination.lines()).ok


@pytest.mark.parametrize(
    "options",
    [
        ["--uidmap=0:100000:65536"],
        ["--read-only", "--user=65534"],
        ["--privileged", "--systemd=always"],
    ],
    ids=["in a user namespace", "as nobody, with nothing to write to", "as systemd's"],
)
def test_the_agent_knows_its_processes_however_it_is_made(
    peer: Shell, podmans: Make, options: list[str]
) -> None:
    command = ["ib_send_bw", "-d", "rxe0", "-p", "7777"]
    here = podmans(PodmanContainer(peer, ["--network=host", *peer.rdma_options, *options], command, "crun"))
    here.run()
    known = f"(ib_send_bw), container {here.full_id()[:12]}: running"
    peer.run("timeout", "60", "sh", "-c", f"until migrrdma status | grep -qF '{known}'; do sleep 0.1; done")


_ROOTLESS = r"""
id somebody || useradd -m somebody
sed -i /^somebody:/d /etc/subuid /etc/subgid  # its own number alone: no helper with more rights is there to map more
run=/run/user/$(id -u somebody)
root=/home/somebody/root
mkdir -p $run $root/usr
ln -sfn usr/bin $root/bin; ln -sfn usr/lib $root/lib; ln -sfn usr/lib64 $root/lib64
chown -R somebody: $run $root
runuser -l somebody -c "XDG_RUNTIME_DIR=$run podman --log-level=error --storage-driver=vfs run --rm --cgroups=disabled \
  --network=host --device=/dev/infiniband/uverbs0 --volume=/usr:/usr:ro --rootfs $root \
  sh -c 'echo preloads \$LD_PRELOAD and has \$(ls /dev/infiniband)'"
"""


def test_a_users_own_container_runs_as_it_would_without_us(peer: Shell) -> None:
    assert "preloads and has uverbs0" in peer.sh(_ROOTLESS).stdout
    said = peer.run("journalctl", "-t", "migrrdma-inject-guest", "--no-pager", "-n", "1").stdout
    assert "left as it is: /run/migrrdma is not this user's to write to" in said


def test_containers_without_rdma_and_builds_are_as_before(peer: Shell) -> None:
    """The usual folders' hooks are run by a build as well, which knows none of this stage."""
    image = container_image("trixie")
    assert (
        peer.run("podman", "run", "--rm", "--network=host", image, "sh", "-c", "echo $LD_PRELOAD").stdout
        == "\n"
    )
    peer.sh(
        f"rm -rf /tmp/build; mkdir /tmp/build; printf 'FROM {image}\\nRUN echo as before\\n' >/tmp/build/Containerfile"
    )
    limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]  # a node cannot raise its own
    said = peer.run("podman", "build", "--network=host", *limits, *peer.rdma_options, "/tmp/build").stdout
    assert "as before" in said


def test_the_runtime_stays_while_a_container_of_podmans_runs_under_it(peer: Shell, podmans: Make) -> None:
    """Podman could neither stop nor remove it; by the name that the install has given the runtime."""
    podmans(PodmanContainer(peer, ["--network=host"], ["sleep", "1000"], "migrrdma")).run()
    with pytest.raises(NodeCommandError, match="cannot be stopped without it: web; stop them first"):
        peer.run("migrrdma", "uninstall")
