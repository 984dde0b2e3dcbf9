"""install and uninstall as commands, on a fake host: what they print, refuse and leave."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner

from migrrdma_runtime import cli, layout
from migrrdma_runtime import host as machine
from migrrdma_runtime.commands import uninstall
from migrrdma_runtime.docker_api import Container, Docker
from migrrdma_runtime.errors import InstallError
from migrrdma_runtime.host import Host

Command = Callable[..., Any]
MakeDocker = Callable[..., Docker]

WEB = Container("a" * 64, "web", "migrrdma", running=True)
OLD = Container("b" * 64, "old", "migrrdma", running=False)


@pytest.fixture(name="migrrdma")
def _migrrdma(host: Host, monkeypatch: pytest.MonkeyPatch, make_docker: MakeDocker) -> Command:
    """Run a command on the fake host, with these containers in its Docker."""

    def no_dockerd(_argv: Sequence[str], /) -> None:
        return None

    monkeypatch.setattr(machine, "Host", lambda: host)
    monkeypatch.setattr(machine, "run", no_dockerd)

    def run(*arguments: str, containers: tuple[Container, ...] = ()) -> Any:
        monkeypatch.setattr(uninstall, "DockerDaemon", lambda: make_docker(*containers))
        return CliRunner().invoke(cli.app, arguments)

    return run


def test_install_says_what_it_did_and_what_comes_next(migrrdma: Command) -> None:
    lines = migrrdma("install").output.splitlines()
    assert f"done     {layout.RUNTIME} (new)" in lines
    assert lines[-1] == "Next: systemctl reload docker, then migrrdma check"
    again = migrrdma("install").output.splitlines()
    assert {line.split()[0] for line in again} == {"already"}


def test_install_reports_to_programs(migrrdma: Command) -> None:
    document = json.loads(migrrdma("install", "--json").stdout)
    assert {step["status"] for step in document["steps"]} == {"done"}
    assert layout.RUNTIME in [step["what"] for step in document["steps"]]
    assert document["dry_run"] is False


def test_a_dry_run_of_uninstall_changes_nothing(migrrdma: Command, host: Host) -> None:
    migrrdma("install")
    done = migrrdma("uninstall", "--dry-run", containers=(WEB,))
    assert f"would    {layout.RUNTIME} (removal)" in done.output.splitlines()
    assert host.path(layout.RUNTIME).exists()


def test_uninstall_is_refused_while_containers_run(migrrdma: Command, host: Host) -> None:
    migrrdma("install")
    done = migrrdma("uninstall", containers=(WEB, OLD))
    assert isinstance(done.exception, InstallError)
    assert "cannot be stopped without it: web; stop them first" in str(done.exception)
    assert host.path(layout.RUNTIME).exists()
    migrrdma("uninstall", "--force", containers=(WEB, OLD))
    assert not host.path(layout.RUNTIME).exists()


def test_uninstall_says_what_it_kept_and_who_is_left(migrrdma: Command) -> None:
    migrrdma("install")
    lines = migrrdma("uninstall", containers=(OLD,)).output.splitlines()
    assert any(line.startswith(f"kept     {layout.GUEST_DIR} (") for line in lines)
    assert lines[-1] == "Stopped containers that will not start without the runtime: old"
