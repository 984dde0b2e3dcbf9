"""``docker run --runtime=migrrdma`` on the real thing: drop-in for everybody; RDMA devices: `tests/rack`."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest
from in_docker import SLEEP, configured, maps_the_guest_library
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_RDMA = ("--device=/dev/infiniband/uverbs0", "--ulimit=memlock=-1")


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
    plain = containers(Container(src, "plain", SLEEP)).run()
    assert not maps_the_guest_library(plain)
    assert "migrrdma" not in plain.docker("exec", "plain", "cat", "/proc/1/environ", "/proc/mounts").stdout


def test_a_broken_configuration_stops_only_rdma_containers_and_says_where(src: Shell) -> None:
    with configured(src, 'runtme = "runc"'):
        src.run("docker", "run", "--rm", "--runtime=migrrdma", "rdma-tools:trixie", "true")
        with pytest.raises(NodeCommandError) as failure:
            src.run("docker", "run", "--rm", "--runtime=migrrdma", *_RDMA, "rdma-tools:trixie", "true")
    assert "/etc/migrrdma/config.toml, line 1: unknown key runtme" in failure.value.stderr


def test_a_missing_low_level_runtime_is_named(src: Shell) -> None:
    with (
        configured(src, 'runtime = "/no/such/runc"'),
        pytest.raises(NodeCommandError, match="/no/such/runc"),
    ):
        src.run("docker", "run", "--rm", "--runtime=migrrdma", "rdma-tools:trixie", "true")


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
