"""``docker run --runtime=migrrdma`` on the real thing: drop-in for everybody, the guest library for RDMA."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator

import pytest
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.plan import DST
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_RDMA = ("--device=/dev/infiniband/uverbs0", "--ulimit=memlock=-1")
_SLEEP = ("sleep", "600")
_LINE_BY_LINE = "-t"  # perftest's output would stay in its buffer until it ends


def _maps_the_guest_library(container: Container, *exec_options: str) -> bool:
    maps = container.docker("exec", *exec_options, container.name, "cat", "/proc/self/maps").stdout
    return "/dev/migrrdma/guest/" in maps


@pytest.mark.parametrize("runtime", ["runc", "migrrdma"])
def test_exit_codes_and_streams_are_the_containers(src: Shell, runtime: str) -> None:
    result = src.run(
        "docker", "run", "--rm", f"--runtime={runtime}", "rdma-tools:trixie",
        "sh", "-c", "echo out; echo err >&2; exit 42", check=False,
    )  # fmt: skip
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 42)


def test_an_unknown_command_is_reported_as_by_runc(src: Shell) -> None:
    def complaint(runtime: str) -> tuple[str, int]:
        result = src.run(
            "docker", "run", "--rm", "--name=unknown", f"--runtime={runtime}", "rdma-tools:trixie", "no-such",
            check=False,
        )  # fmt: skip
        return result.stderr, result.returncode

    assert complaint("migrrdma") == complaint("runc")


def test_an_ordinary_container_gets_nothing(src: Shell, containers: Register) -> None:
    plain = containers(Container(src, "plain", _SLEEP)).run()
    assert not _maps_the_guest_library(plain)
    assert "migrrdma" not in plain.docker("exec", "plain", "cat", "/proc/1/environ", "/proc/mounts").stdout


@pytest.mark.parametrize("image", ["rdma-tools:trixie", "rdma-tools:bookworm"])
def test_an_rdma_container_loads_the_guest_library_and_still_does_rdma(
    src: Shell, dst: Shell, containers: Register, image: str
) -> None:
    options = (*_RDMA, "--network=host", _LINE_BY_LINE)
    server_command = ("ib_send_bw", "-d", "rxe0", "-x", "1", "-n", "50", "-s", "4096")
    server = containers(Container(dst, "server", server_command, options, image)).run()
    server.wait_for_line("Waiting for client")
    client_command = (*server_command, DST.data_address)
    client = containers(Container(src, "client", client_command, options, image)).run()
    assert client.docker("wait", "client").stdout.strip() == "0", client.lines()
    assert server.docker("wait", "server").stdout.strip() == "0", server.lines()
    assert any(line.split()[:2] == ["4096", "50"] for line in client.lines())


@pytest.mark.parametrize(
    "options",
    [_RDMA, ("--privileged",), ("--annotation=org.migrrdma.enable=true",), ("--device=rack/rdma=all",)],
)
def test_every_way_to_hold_a_device_loads_the_guest_library(
    src: Shell, containers: Register, options: tuple[str, ...]
) -> None:
    container = containers(Container(src, "holder", _SLEEP, options)).run()
    assert (
        "/dev/migrrdma/guest/" in src.sh("cat /proc/$(docker inspect -f {{.State.Pid}} holder)/maps").stdout
    )
    assert _maps_the_guest_library(container)
    # A user's own preload in an exec survives, and ours is still there.
    assert _maps_the_guest_library(container, "-e", "LD_PRELOAD=/lib/x86_64-linux-gnu/libm.so.6")


def test_what_the_container_left_on_the_host_goes_with_it(src: Shell, containers: Register) -> None:
    container = containers(Container(src, "tidy", _SLEEP, _RDMA)).run()
    directory = f"/run/migrrdma/containers/{container.full_id()}"
    state = json.loads(src.run("cat", f"{directory}/state.json").stdout)
    assert state["pid"] == int(container.docker("inspect", "-f", "{{.State.Pid}}", "tidy").stdout)
    container.remove()
    with pytest.raises(NodeCommandError):
        src.run("test", "-e", directory)


@contextlib.contextmanager
def _configured(node: Shell, line: str) -> Iterator[None]:
    """``line`` as the first of the node's configuration file."""
    file = "/etc/migrrdma/config.toml"
    node.sh(f"cp {file} {file}.kept; {{ echo {shlex.quote(line)}; cat {file}.kept; }} >{file}")
    try:
        yield
    finally:
        node.run("mv", f"{file}.kept", file)


def test_a_broken_configuration_stops_only_rdma_containers_and_says_where(src: Shell) -> None:
    with _configured(src, 'runtme = "runc"'):
        src.run("docker", "run", "--rm", "--runtime=migrrdma", "rdma-tools:trixie", "true")
        with pytest.raises(NodeCommandError) as failure:
            src.run("docker", "run", "--rm", "--runtime=migrrdma", *_RDMA, "rdma-tools:trixie", "true")
    assert "/etc/migrrdma/config.toml, line 1: unknown key runtme" in failure.value.stderr


def test_a_missing_low_level_runtime_is_named(src: Shell) -> None:
    with (
        _configured(src, 'runtime = "/no/such/runc"'),
        pytest.raises(NodeCommandError, match="/no/such/runc"),
    ):
        src.run("docker", "run", "--rm", "--runtime=migrrdma", "rdma-tools:trixie", "true")


def test_crun_can_do_the_work(src: Shell, containers: Register) -> None:
    with _configured(src, 'runtime = "crun"'):
        container = containers(Container(src, "by-crun", _SLEEP, _RDMA)).run()
        assert _maps_the_guest_library(container)
        container.remove()


def test_the_doctor_finds_a_rack_node_healthy(src: Shell) -> None:
    report = json.loads(src.run("migrrdma", "check", "--json").stdout)
    assert report["ok"] is True
    assert {check["name"] for check in report["checks"] if check["status"] == "failure"} == set()
    by_name = {check["name"]: check for check in report["checks"]}
    assert "rxe0" in by_name["rdma-devices"]["detail"]
    assert by_name["rdma-netns"]["status"] == "ok", by_name["rdma-netns"]


def test_dockerd_accepts_the_configuration_and_is_asked_before_it_is_changed(src: Shell) -> None:
    file = "/etc/docker/daemon.json"
    version = int(src.sh("dockerd --version | sed 's/.*version \\([0-9]*\\).*/\\1/'").stdout)
    if version < 23:  # has no --validate; bookworm's
        src.run("python3", "-m", "json.tool", file)
        return
    src.run("dockerd", "--validate", "--config-file", file)
    wrong = '{"log-level": "no such level"}'
    src.sh(f"echo {shlex.quote(wrong)} >/root/wrong.json")
    src.run("migrrdma", "uninstall")
    try:
        refused = src.run("migrrdma", "install", "--docker-config", "/root/wrong.json", check=False)
        assert refused.returncode == 1
        assert "dockerd does not accept the edited /root/wrong.json, nothing was changed" in refused.stderr
        assert src.run("cat", "/root/wrong.json").stdout.strip() == wrong
        src.run("migrrdma", "uninstall")
    finally:
        src.run("migrrdma", "install")
        src.run("systemctl", "enable", "--now", "migrrdma-agent")
        src.run("systemctl", "reload", "docker")


def test_uninstall_stops_the_agent_and_install_brings_it_back(src: Shell) -> None:
    src.run("migrrdma", "uninstall")
    try:
        assert src.run("systemctl", "is-active", "migrrdma-agent", check=False).stdout.strip() == "inactive"
        assert src.run("pgrep", "-f", "[m]igrrdma_runtime.agent", check=False).returncode == 1
    finally:
        src.run("migrrdma", "install")
        src.run("systemctl", "enable", "--now", "migrrdma-agent")
        src.run("systemctl", "reload", "docker")
    src.run("migrrdma", "status")


def test_a_killed_agent_is_back_at_once(src: Shell) -> None:
    src.sh("systemctl kill --signal=KILL migrrdma-agent")
    # Its sockets are there first, and a request waits for the rest.
    src.sh("until migrrdma status; do sleep 0.2; done", timeout=60)


def test_uninstall_gives_docker_its_configuration_back_to_the_byte(src: Shell) -> None:
    registered = src.run("cat", "/etc/docker/daemon.json").stdout
    src.run("migrrdma", "uninstall")
    try:
        assert src.run("cat", "/etc/docker/daemon.json").stdout == src.run("cat", "/root/daemon.json").stdout
        assert src.run("migrrdma", "check", check=False).returncode == 1
    finally:
        src.run("migrrdma", "install")
        src.run("systemctl", "enable", "--now", "migrrdma-agent")  # which the uninstall stopped
        src.run("systemctl", "reload", "docker")
    assert src.run("cat", "/etc/docker/daemon.json").stdout == registered
