"""install and uninstall as commands, on a fake host: what they print, refuse and leave."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from records import partner_data, source_data
from trees import tree_of
from typer.testing import CliRunner

import migrrdma_runtime
from migrrdma_runtime import cli
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import DockerError, EngineError, InstallError
from migrrdma_runtime.commands import uninstall
from migrrdma_runtime.engine.docker import Docker
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.podman import Podman
from migrrdma_runtime.host import machine
from migrrdma_runtime.host.install.docker_config import DEFAULT
from migrrdma_runtime.host.machine import Host

Command = Callable[..., Any]
MakeDocker = Callable[..., Docker]

WEB = Container("a" * 64, "web", "migrrdma", running=True)
OLD = Container("b" * 64, "old", "migrrdma", running=False)


@pytest.fixture(name="migrrdma")
def _migrrdma(host: Host, monkeypatch: pytest.MonkeyPatch, make_docker: MakeDocker) -> Command:
    """Run a command on the fake host, with these containers in its Docker."""

    def no_program(_argv: Sequence[str], /) -> None:
        return None

    monkeypatch.setattr(machine, "Host", lambda: host)
    monkeypatch.setattr(machine, "run", no_program)

    def run(
        *arguments: str, containers: tuple[Container, ...] = (), podmans: tuple[Container, ...] = ()
    ) -> Any:
        monkeypatch.setattr(Podman, "containers", lambda _podman: list(podmans))
        monkeypatch.setattr(uninstall, "DockerDaemon", lambda: make_docker(*containers))
        return CliRunner().invoke(cli.app, arguments)

    return run


def test_install_says_what_it_did_and_what_comes_next(migrrdma: Command) -> None:
    lines = migrrdma("install").output.splitlines()
    assert f"done     {paths.RUNTIME} (new)" in lines
    assert lines[-1] == "Next: systemctl reload docker, then migrrdma check"
    again = migrrdma("install").output.splitlines()
    assert {line.split()[0] for line in again} == {"already"}


def test_uninstall_looks_after_podmans_containers_as_well(migrrdma: Command, host: Host) -> None:
    migrrdma("install", "--engine", "podman")
    of_others = Container("c" * 64, "fast", "crun", running=True)
    done = migrrdma("uninstall", podmans=(WEB, of_others))
    assert "cannot be stopped without it: web; stop them first" in str(done.exception)
    assert host.path(paths.RUNTIME).exists()
    lines = migrrdma("uninstall", podmans=(OLD, of_others)).output.splitlines()
    assert lines[-1] == "Stopped containers that will not start without the runtime: old"


def test_uninstall_says_when_podman_does_not_answer(
    migrrdma: Command, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_podman: Podman) -> list[Container]:
        raise EngineError("podman: no space left")

    migrrdma("install")
    migrrdma("uninstall", "--dry-run")
    monkeypatch.setattr(Podman, "containers", refuse)
    monkeypatch.setattr(uninstall, "DockerDaemon", _nobody)
    done = CliRunner().invoke(cli.app, ["uninstall"])
    assert "whether containers need the runtime is unknown: podman: no space left" in done.output
    assert not host.path(paths.RUNTIME).exists()


def _nobody() -> Docker:
    raise DockerError("not there")


def test_install_for_podman_tells_nobody_else(migrrdma: Command, host: Host) -> None:
    lines = migrrdma("install", "--engine", "podman").output.splitlines()
    assert f"done     {paths.PODMAN_CONFIG} (new)" in lines
    assert lines[-1] == "Next: migrrdma check"
    assert not host.path(DEFAULT).exists()
    assert {line.split()[0] for line in migrrdma("install").output.splitlines()} == {"already"}


def test_install_knows_the_engines_that_can_be_told(migrrdma: Command) -> None:
    done = migrrdma("install", "--engine", "lxc", "--dry-run")
    assert str(done.exception) == "there is no engine 'lxc': --engine takes docker or podman"


def test_install_reports_to_programs(migrrdma: Command) -> None:
    document = json.loads(migrrdma("install", "--json").stdout)
    assert {step["status"] for step in document["steps"]} == {"done"}
    assert paths.RUNTIME in [step["what"] for step in document["steps"]]
    assert document["dry_run"] is False


def test_a_dry_run_of_uninstall_changes_nothing(migrrdma: Command, host: Host) -> None:
    migrrdma("install")
    done = migrrdma("uninstall", "--dry-run", containers=(WEB,))
    assert f"would    {paths.RUNTIME} (removal)" in done.output.splitlines()
    assert host.path(paths.RUNTIME).exists()


def test_uninstall_is_refused_while_containers_run(migrrdma: Command, host: Host) -> None:
    migrrdma("install")
    done = migrrdma("uninstall", containers=(WEB, OLD))
    assert isinstance(done.exception, InstallError)
    assert "cannot be stopped without it: web; stop them first" in str(done.exception)
    assert host.path(paths.RUNTIME).exists()
    migrrdma("uninstall", "--force", containers=(WEB, OLD))
    assert not host.path(paths.RUNTIME).exists()


def test_uninstall_says_what_it_kept_and_who_is_left(migrrdma: Command) -> None:
    migrrdma("install")
    lines = migrrdma("uninstall", containers=(OLD,)).output.splitlines()
    assert any(line.startswith(f"kept     {paths.GUEST_DIR} (") for line in lines)
    assert lines[-1] == "Stopped containers that will not start without the runtime: old"


def test_install_compiles_what_its_installer_did_not(
    migrrdma: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "agent").mkdir(parents=True)
    for name in ("__init__.py", "agent/__init__.py", "agent/daemon.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.setattr(migrrdma_runtime, "__file__", str(package / "__init__.py"))
    assert f"done     {package} (compiling 3 modules)" in migrrdma("install").output.splitlines()
    assert len(list(package.rglob("*.pyc"))) == 3
    (package / "agent/daemon.py").write_text("x = 2  # an upgrade\n")
    assert f"done     {package} (compiling 1 modules)" in migrrdma("install").output.splitlines()
    assert {line.split()[0] for line in migrrdma("install").output.splitlines()} == {"already"}


# --- migrations under way ---------------------------------------------------------------------------------


@pytest.fixture(name="agents")
def _agents(host: Host) -> Iterator[Store]:
    """The records of an agent that runs, or was killed."""
    store = Store(host.path(paths.AGENT_STATE_DIR) / "state.db")
    yield store
    store.close()


def test_uninstall_is_refused_in_the_middle_of_a_migration(
    migrrdma: Command, host: Host, agents: Store
) -> None:
    migrrdma("install")
    agents.begin("0" * 16, partner_data())
    agents.move(agents.begin("1" * 16, source_data()), State.UNDONE)
    done = migrrdma("uninstall")
    assert isinstance(done.exception, InstallError)
    assert f"need this host's agent: {'0' * 16} (partner, suspended); wait" in str(done.exception)
    assert host.path(paths.AGENT_UNIT).exists()
    assert migrrdma("uninstall", "--force").exit_code == 0
    assert not host.path(paths.AGENT_UNIT).exists()


def test_a_checkpoint_that_waits_is_a_warning(migrrdma: Command, agents: Store) -> None:
    migrrdma("install")
    record = agents.begin("2" * 16, source_data())
    agents.move(record, State.DUMPING)
    agents.move(record, State.PARKED)
    # Of these another host decides, or is about to: what becomes of them here waits for a person, too.
    for name, way in (("3", (State.SUPERSEDED,)), ("4", (State.SUPERSEDED, State.ADOPTING))):
        record = agents.begin(name * 16, source_data())
        for state in (State.DUMPING, State.PARKED, *way):
            agents.move(record, state)
    lines = migrrdma("uninstall").output.splitlines()
    assert lines[-1].startswith(
        "Checkpoints that wait for a restore or a decision, which takes an agent here: "
    )
    assert lines[-1].endswith(", ".join(name * 16 for name in "234"))


def test_what_is_kept_on_purpose_is_listed(migrrdma: Command, host: Host, agents: Store) -> None:
    agents.close()
    migrrdma("install")
    for name in (
        f"{paths.TLS_DIR}/agent.key",
        f"{paths.CA_DIR}/ca.key",
        f"{paths.RUN_DIR}/agent/guest.sock",
    ):
        host.path(name).parent.mkdir(parents=True, exist_ok=True)
        host.path(name).touch()
    kept = [line.split()[1] for line in migrrdma("uninstall").output.splitlines() if line.startswith("kept")]
    assert kept == [paths.GUEST_DIR, paths.AGENT_STATE_DIR, paths.TLS_DIR, paths.CA_DIR]
    left = {name for name in tree_of(host) if "migrrdma" in name}
    below = (paths.GUEST_DIR, paths.AGENT_STATE_DIR, paths.TLS_DIR, paths.CA_DIR)
    parents = {"/etc/migrrdma", "/var/lib/migrrdma", "/var/lib/migrrdma/install.json"}
    assert {name for name in left if not name.startswith(below)} == parents
    assert {line.split()[0] for line in migrrdma("uninstall").output.splitlines()} == {"kept"}
    purged = migrrdma("uninstall", "--purge").output.splitlines()
    assert [line.split()[1] for line in purged if line.startswith("kept")] == [DEFAULT, paths.CA_DIR]
    assert {name for name in tree_of(host) if "migrrdma" in name} == {
        "/etc/migrrdma",
        paths.CA_DIR,
        f"{paths.CA_DIR}/ca.key",
    }
