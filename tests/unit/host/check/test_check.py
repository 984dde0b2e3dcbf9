"""The doctor on machines that are well, and on machines that each lack one thing."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine.docker import Docker
from migrrdma_runtime.host.check import agent, criu, docker, installation, kernel, podman, rdma
from migrrdma_runtime.host.check.result import Check, Machine, Result, Status, ok
from migrrdma_runtime.host.check.table import CHECKS, examine, is_healthy
from migrrdma_runtime.host.install import payload
from migrrdma_runtime.host.install.docker_config import DockerConfig
from migrrdma_runtime.host.install.install import plan
from migrrdma_runtime.host.install.step import perform
from migrrdma_runtime.host.machine import Finished, Host, run

Answers = Mapping[str, Finished]
MakeDocker = Callable[..., Docker]

RELEASE = "6.12.107+deb13-amd64"
OPTIONS = [
    *(
        "CHECKPOINT_RESTORE",
        "NAMESPACES",
        "UTS_NS",
        "IPC_NS",
        "PID_NS",
        "NET_NS",
        "FHANDLE",
        "EVENTFD",
        "EPOLL",
    ),
    *("UNIX_DIAG", "INET_DIAG", "PACKET_DIAG", "NETLINK_DIAG", "MEM_SOFT_DIRTY", "INFINIBAND_USER_ACCESS"),
]
INFO = {
    "ServerVersion": "26.1.5+dfsg1",
    "ExperimentalBuild": True,
    "Runtimes": {"runc": {"path": "runc"}, "migrrdma": {"path": paths.RUNTIME}},
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin"],
}
GOOD = Finished(0, "Looks good.\n", "")
ANSWERS = {
    "criu --version": Finished(0, "Version: 4.1.1\nGitID: v4.1.1\n", ""),
    "criu check": GOOD,
    "criu check --feature mem_dirty_track": GOOD,
    "rdma system show": Finished(0, "netns shared privileged-qkey off monitor on copy-on-fork on\n", ""),
    "rdma -j resource show qp": Finished(
        0, '[{"ifindex":0,"ifname":"rxe0","port":1,"lqpn":1,"type":"GSI","state":"RTS","comm":"ib_core"}]', ""
    ),
}


def config(*without: str) -> bytes:
    """A kernel's build options."""
    lines = [f"CONFIG_{one}=y" for one in OPTIONS if one not in without]
    return "\n".join([*lines, *(f"# CONFIG_{one} is not set" for one in without)]).encode()


def unreachable() -> Docker:
    raise DockerError("Docker cannot be reached: No such file or directory")


def write(host: Host, name: str, content: str | bytes) -> None:
    path = host.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture(name="healthy")
def _healthy(host: Host) -> Host:
    write(host, "/proc/sys/kernel/osrelease", RELEASE + "\n")
    write(host, f"/boot/config-{RELEASE}", config())
    write(host, "/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n")
    write(host, "/sys/class/infiniband/rxe0/ports/1/state", "4: ACTIVE\n")
    write(host, "/sys/class/infiniband_verbs/uverbs0/ibdev", "rxe0\n")
    write(host, "/dev/infiniband/uverbs0", "")
    return host


@pytest.fixture(name="machine_of")
def _machine_of(make_docker: MakeDocker) -> Callable[..., Machine]:
    def make(
        host: Host, answers: Answers = ANSWERS, info: dict[str, Any] | None = None, *, is_root: bool = True
    ) -> Machine:
        def answer(argv: Sequence[str], /) -> Finished | None:
            return answers.get(" ".join(argv))

        return Machine(host, answer, lambda: make_docker(info=info or INFO), is_root)

    return make


MachineOf = Callable[..., Machine]
MACHINE_CHECKS = {
    "kernel": kernel.options,
    "huge-pages": kernel.huge_pages,
    "criu": criu.version,
    "criu-check": criu.check,
    "dirty-tracking": criu.dirty_tracking,
    "docker": docker.daemon,
    "docker-experimental": docker.experimental,
    "docker-start-checkpoint": docker.start_from_checkpoint,
    "docker-runtime": docker.runtime,
    "rdma-devices": rdma.devices,
    "rdma-netns": rdma.netns_mode,
    "rdma-owners": rdma.owners,
}


@pytest.mark.parametrize("check", MACHINE_CHECKS.values(), ids=MACHINE_CHECKS.keys())
def test_a_healthy_machine_is_found_healthy(check: Check, healthy: Host, machine_of: MachineOf) -> None:
    result = check(machine_of(healthy))
    assert result.status is Status.OK, result
    assert not result.remedy


def test_the_kernel_options_say_where_they_were_read(healthy: Host, machine_of: MachineOf) -> None:
    write(healthy, "/proc/config.gz", gzip.compress(config("CHECKPOINT_RESTORE")))
    result = kernel.options(machine_of(healthy))
    assert result.status is Status.FAILURE
    assert "without CONFIG_CHECKPOINT_RESTORE (read from /proc/config.gz)" in result.detail


def test_a_kernel_that_hides_its_options_is_a_warning(host: Host, machine_of: MachineOf) -> None:
    result = kernel.options(machine_of(host))
    assert result.status is Status.WARNING
    assert "/proc/config.gz" in result.remedy


WORSE: dict[str, tuple[Check, dict[str, Finished], Status, str]] = {
    "no CRIU": (criu.version, {}, Status.FAILURE, "not installed"),
    "an old CRIU": (
        criu.version,
        {"criu --version": Finished(0, "Version: 3.15\n", "")},
        Status.FAILURE,
        "3.15 is too old",
    ),
    "a CRIU that does not start": (
        criu.version,
        {"criu --version": Finished(1, "", "Unexpected rt vDSO area bounds\n")},
        Status.FAILURE,
        "Unexpected rt vDSO area bounds",
    ),
    "criu check without CRIU": (criu.check, {}, Status.WARNING, "not examined"),
    "criu check fails": (
        criu.check,
        {"criu check": Finished(1, "", "Error (criu/cr-check.c): no timerfd\n")},
        Status.FAILURE,
        "no timerfd",
    ),
    "criu check hangs": (
        criu.check,
        {"criu check": Finished(124, "", "criu gave no answer within 60 seconds")},
        Status.FAILURE,
        "no answer within",
    ),
    "no dirty tracking": (
        criu.dirty_tracking,
        {"criu check --feature mem_dirty_track": Finished(1, "", "mem_dirty_track is not supported\n")},
        Status.WARNING,
        "not supported",
    ),
    "no rdma tool": (rdma.netns_mode, {}, Status.WARNING, "rdma tool is missing"),
    "no rdma tool that knows owners": (rdma.owners, {}, Status.WARNING, "believes what containers say"),
    "a kernel that does not say whose queue pairs are": (
        rdma.owners,
        {"rdma -j resource show qp": Finished(1, "", "error: Operation not supported\n")},
        Status.WARNING,
        "Operation not supported: the agent believes",
    ),
    "an rdma tool that writes no JSON": (
        rdma.owners,
        {"rdma -j resource show qp": Finished(0, "link rxe0/1 lqpn 1 type GSI\n", "")},
        Status.WARNING,
        "rdma resource show qp",
    ),
    "exclusive namespaces": (
        rdma.netns_mode,
        {"rdma system show": Finished(0, "netns exclusive copy-on-fork on\n", "")},
        Status.WARNING,
        "exclusive",
    ),
    "an rdma tool that talks nonsense": (
        rdma.netns_mode,
        {"rdma system show": Finished(0, "", "")},
        Status.WARNING,
        "rdma system show",
    ),
}


@pytest.mark.parametrize(("check", "answers", "status", "text"), WORSE.values(), ids=WORSE.keys())
def test_what_a_program_says_is_passed_on(
    check: Check, answers: Answers, status: Status, text: str, healthy: Host, machine_of: MachineOf
) -> None:
    result = check(machine_of(healthy, answers))
    assert result.status is status
    assert text in result.detail
    assert result.remedy


DOCKERS: dict[str, tuple[Check, dict[str, Any], str]] = {
    "an old one": (docker.daemon, {"ServerVersion": "19.03.15"}, "19.03.15 is too old"),
    "a rootless one": (docker.daemon, {"SecurityOptions": ["name=rootless"]}, "rootless"),
    "not experimental": (docker.experimental, {"ExperimentalBuild": False}, "experimental mode is off"),
    "does not know the runtime": (
        docker.runtime,
        {"Runtimes": {"runc": {"path": "runc"}}},
        "knows no runtime",
    ),
    "has another path": (docker.runtime, {"Runtimes": {"migrrdma": {"path": "/x"}}}, "is /x, not"),
}


@pytest.mark.parametrize(("check", "change", "text"), DOCKERS.values(), ids=DOCKERS.keys())
def test_a_docker_that_will_not_do_is_a_failure(
    check: Check, change: dict[str, Any], text: str, host: Host, machine_of: MachineOf
) -> None:
    result = check(machine_of(host, info={**INFO, **change}))
    assert result.status is Status.FAILURE
    assert text in result.detail
    assert result.remedy


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("20.10.24+dfsg1", "can docker start --checkpoint, and"),
        ("26.1.5+dfsg1", "can docker start --checkpoint, and"),
        (
            "28.5.2",
            "fails to docker start --checkpoint what has a network of its own; migrrdma checkpoint import",
        ),
    ],
)
def test_which_way_back_from_a_checkpoint_a_docker_has(
    host: Host, machine_of: MachineOf, version: str, said: str
) -> None:
    result = docker.start_from_checkpoint(machine_of(host, info={"ServerVersion": version}))
    assert result.status is Status.OK
    assert result.detail.startswith(f"Docker {version} {said}")


def test_an_unreachable_docker_is_reported_once(host: Host) -> None:
    machine = Machine(host, run, unreachable, is_root=True)
    results = [check(machine) for check in (docker.daemon, docker.experimental, docker.runtime)]
    assert [one.status for one in results] == [Status.FAILURE, Status.WARNING, Status.WARNING]
    assert results[0].detail == "Docker cannot be reached: No such file or directory"


def test_criu_check_is_not_attempted_without_root(healthy: Host, machine_of: MachineOf) -> None:
    result = criu.check(machine_of(healthy, {}, is_root=False))
    assert result.detail == "not examined: criu check needs root"


def test_rdma_devices_are_listed_with_what_they_lack(healthy: Host, machine_of: MachineOf) -> None:
    machine = machine_of(healthy)
    assert rdma.devices(machine).detail == "rxe0 (port 1 ACTIVE)"
    write(healthy, "/sys/class/infiniband/rxe0/ports/1/state", "1: DOWN\n")
    assert "rxe0 has no active port" in rdma.devices(machine).detail
    healthy.path("/dev/infiniband/uverbs0").unlink()
    assert "no /dev/infiniband/uverbs* for rxe0" in rdma.devices(machine).detail


def test_a_machine_without_rdma_is_told_how_to_get_it(host: Host, machine_of: MachineOf) -> None:
    result = rdma.devices(machine_of(host))
    assert result.status is Status.WARNING
    assert "rdma link add" in result.remedy
    no_netlink = {"rdma system show": Finished(1, "", "Failed to open NETLINK_RDMA socket\n")}
    assert rdma.netns_mode(machine_of(host, no_netlink)).status is Status.OK


def test_huge_pages_are_information(healthy: Host, machine_of: MachineOf) -> None:
    write(healthy, "/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")
    result = kernel.huge_pages(machine_of(healthy))
    assert result.status is Status.OK
    assert "transparent huge pages: always" in result.detail


# --- our own files ----------------------------------------------------------------------------------------


@pytest.fixture(name="installed")
def _installed(host: Host) -> Host:
    list(perform(plan(host, payload.load(sys.executable), DockerConfig(host, lambda _argv: None))))
    return host


def test_an_installation_in_order_is_found_in_order(installed: Host) -> None:
    machine = Machine(installed, run, unreachable, is_root=True)
    for check in (installation.hooks, installation.guest_library):
        assert check(machine).status is Status.OK


def for_podman(host: Host, *asked: str) -> Machine:
    files, runs_nothing = payload.load(sys.executable), DockerConfig(host, lambda _argv: None)
    list(perform(plan(host, files, runs_nothing, asked)))
    return Machine(host, run, unreachable, is_root=True)


def test_a_host_that_was_installed_for_podman_alone_is_not_asked_about_docker(host: Host) -> None:
    machine = for_podman(host, "podman")
    asked = (docker.daemon, docker.experimental, docker.start_from_checkpoint, docker.runtime, podman.hook)
    assert {check(machine).status for check in asked} == {Status.OK}
    machine = for_podman(host, "docker")
    assert docker.daemon(machine).status is Status.FAILURE
    assert podman.hook(machine).status is Status.OK


def test_docker_is_asked_about_where_the_record_cannot_be_read(host: Host) -> None:
    machine = for_podman(host, "podman")
    host.path("/var/lib/migrrdma/install.json").write_text("{")
    assert docker.daemon(machine).detail.startswith("Docker cannot be reached")


def test_whether_podman_has_the_hook_is_said(host: Host, machine_of: MachineOf) -> None:
    without = podman.hook(machine_of(host))
    assert (without.status, "no hook of ours" in without.detail) == (Status.OK, True)
    machine = for_podman(host, "podman")
    later = "/etc/containers/containers.conf.d/95-later.conf"
    write(host, later, '[engine]\nhooks_dir = ["/elsewhere"]\n')
    assert later in podman.hook(machine).detail
    host.path(later).unlink()
    write(host, "/etc/containers/containers.conf", '[engine]\nhooks_dir = ["/elsewhere"]\n')
    behind = podman.hook(machine)
    host.path("/etc/containers/containers.conf").unlink()
    host.path(paths.INJECT_GUEST).unlink()
    missing = podman.hook(machine)
    assert {behind.status, missing.status} == {Status.FAILURE}
    assert behind.detail.endswith(paths.PODMAN_CONFIG)
    assert missing.detail.endswith(paths.INJECT_GUEST)


def test_whether_a_restore_is_committed_before_the_first_instruction_is_said_with_the_reason(
    installed: Host, machine_of: MachineOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(tmp_path / "config.toml"))
    old = {"criu --version": Finished(0, "Version: 3.17.1\n", "")}
    assert criu.late_commit(machine_of(installed)).status is Status.OK
    found = [criu.late_commit(machine_of(installed, old)), criu.late_commit(machine_of(installed, {}))]
    installed.path(paths.CRIU_PLUGIN).unlink()
    found.append(criu.late_commit(machine_of(installed)))
    (tmp_path / "config.toml").write_text("[criu]\nlate_commit = false\n")
    found.append(criu.late_commit(machine_of(installed)))
    # It works as before: a warning, with what would mend it.
    assert {one.status for one in found} == {Status.WARNING}
    reasons = (
        "CRIU 3.17 has no hook",
        "CRIU is missing",
        "plugin for CRIU is missing",
        "late_commit = false",
    )
    for one, reason in zip(found, reasons, strict=True):
        assert reason in one.detail
        assert one.remedy


@pytest.mark.parametrize(
    ("check", "path"),
    [
        (installation.launcher, paths.RUNTIME),
        (installation.hooks, paths.HOOKS_DIR),
        (installation.guest_library, paths.GUEST_DIR),
    ],
)
def test_a_missing_file_is_a_failure_mended_by_install(installed: Host, check: Check, path: str) -> None:
    installed.path(path).rename(installed.path(path).with_name("elsewhere"))
    result = check(Machine(installed, run, unreachable, is_root=True))
    assert result.status is Status.FAILURE
    assert result.remedy == "migrrdma install"


def test_a_launcher_is_tried_out(installed: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(tmp_path / "config.toml"))
    machine = Machine(installed, run, unreachable, is_root=True)
    assert installation.launcher(machine).status is Status.OK
    (tmp_path / "config.toml").write_text('runtime = "/nowhere/runc"\n')
    result = installation.launcher(machine)
    assert result.status is Status.FAILURE
    assert "/nowhere/runc" in result.detail


def test_the_configuration_is_read(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(host, run, unreachable, is_root=True)
    file = tmp_path / "config.toml"
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(file))
    assert installation.configuration(machine).status is Status.OK
    file.write_text("runtime = 5\n")
    result = installation.configuration(machine)
    assert result.status is Status.FAILURE
    assert "line 1" in result.detail


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        ("runc version 1.1.15\nspec: 1.0.2", Status.OK, "runc version 1.1.15"),
        ("crun version 1.8.1\n+SYSTEMD +SELINUX +CRIU +YAJL", Status.OK, "crun version 1.8.1"),
        ("crun version 1.8.1\n+SYSTEMD +SELINUX +YAJL", Status.FAILURE, "built without CRIU"),
    ],
)
def test_the_low_level_runtime_must_know_criu(
    answer: str, status: Status, text: str, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "runtime"
    program.write_text(f"#!/bin/sh\ncat <<END\n{answer}\nEND\n")
    program.chmod(0o755)
    (tmp_path / "config.toml").write_text(f'runtime = "{program}"\n')
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(tmp_path / "config.toml"))
    result = installation.low_level_runtime(Machine(host, run, unreachable, is_root=True))
    assert result.status is status
    assert text in result.detail


@pytest.mark.parametrize(
    ("mode", "owner", "is_open"),
    [(0o755, 0, False), (0o1777, 0, False), (0o775, 0, True), (0o757, 0, True), (0o755, 1000, True)],
)
def test_what_docker_runs_as_root_is_roots_alone(
    tmp_path: Path, mode: int, owner: int, is_open: bool
) -> None:
    tmp_path.chmod(mode)
    os.chown(tmp_path, owner, 0)
    assert installation.is_open_to_others(tmp_path) is is_open


# --- the whole --------------------------------------------------------------------------------------------


def test_a_check_that_cannot_be_made_is_a_finding(host: Host) -> None:
    def broken(_machine: Machine) -> Result:
        raise OSError(5, "Input/output error")

    result = examine(Machine(host, run, unreachable, is_root=True), broken)
    assert result.status is Status.FAILURE
    assert "Input/output error" in result.detail


@pytest.mark.parametrize(
    ("check", "module", "lost"),
    [
        ("pyverbs", "pyverbs", "the limits of devices are not compared"),
        ("python-ptrace", "ptrace", "`migrrdma inspect` cannot say where"),
        ("prometheus-client", "prometheus_client", "the agent offers no metrics"),
    ],
)
def test_a_package_that_one_can_do_without_is_a_warning_that_says_what_is_lost(
    host: Host, machine_of: MachineOf, monkeypatch: pytest.MonkeyPatch, check: str, module: str, lost: str
) -> None:
    present: set[str] = set()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in present else None)
    missing = CHECKS[check](machine_of(host))
    assert missing.status is Status.WARNING
    assert lost in missing.detail
    assert missing.remedy.startswith("apt install python3-")
    present.add(module)
    assert CHECKS[check](machine_of(host)).status is Status.OK


def test_warnings_do_not_make_a_machine_sick() -> None:
    assert is_healthy([ok(""), Result(Status.WARNING, "")])
    assert not is_healthy([ok(""), Result(Status.FAILURE, "")])


def test_an_unreachable_docker_is_reported_in_the_systems_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "migrrdma_runtime", "check"],
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/missing.sock"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )
    assert "Docker cannot be reached: No such file or directory\n" in done.stdout


def test_json_is_one_document_and_agrees_with_the_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "migrrdma_runtime", "check", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )
    document = json.loads(done.stdout)
    assert [one["name"] for one in document["checks"]] == list(CHECKS)
    assert {key for one in document["checks"] for key in one} == {"name", "status", "detail", "remedy"}
    statuses = {one["status"] for one in document["checks"]}
    assert statuses <= {"ok", "warning", "failure"}
    assert document["ok"] is ("failure" not in statuses)
    assert done.returncode == (0 if document["ok"] else 1)
    assert done.stderr == ""


def test_a_damaged_list_of_revoked_certificates_is_named_with_its_remedy(
    host: Host, machine_of: MachineOf
) -> None:
    """The agent itself says so only when it starts."""
    certificates.make_ca(host.root / "ca", "test")
    tls = host.path(paths.TLS_DIR)
    certificates.issue(host.root / "ca", "src", ["10.78.0.11"], tls)
    assert agent.certificate(machine_of(host)).status is Status.OK
    (tls / "ca.crl").write_text("?")
    result = agent.certificate(machine_of(host))
    assert result.status is Status.WARNING
    assert "ca.crl holds no list of revoked certificates" in result.detail
    assert result.remedy.endswith(f"to {paths.TLS_DIR}/ca.crl")
    (tls / "ca.crl").unlink()
    assert agent.certificate(machine_of(host)).status is Status.OK
