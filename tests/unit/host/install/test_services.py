"""What install and uninstall ask of systemd, where it runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import pytest

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import InstallError
from migrrdma_runtime.host.install import payload
from migrrdma_runtime.host.install.docker_config import DockerConfig
from migrrdma_runtime.host.install.install import plan as plan_install
from migrrdma_runtime.host.install.service import UNITS, enabled
from migrrdma_runtime.host.install.step import perform
from migrrdma_runtime.host.install.uninstall import plan as plan_uninstall
from migrrdma_runtime.host.machine import Finished, Host

_FILES = {PurePath(file).name: file for file in UNITS}
_MOVER, _AGENT = _FILES


@dataclass
class Systemd:
    """A systemd with our units; it knows what it has read and what it was told."""

    host: Host
    states: dict[str, str] = field(default_factory=lambda: dict.fromkeys(_FILES, "inactive"))
    stale: bool = False
    refuses: str = ""
    asked: list[str] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], /) -> Finished | None:
        """``systemctl``; there is no dockerd."""
        if argv[0] != "systemctl":
            return None
        if argv[1] == "show":
            members = {"ActiveState": self.states[argv[5]], "NeedDaemonReload": "yes" if self.stale else "no"}
            return Finished(0, members[argv[4]] + "\n", "")
        self.asked.append(" ".join(argv[1:]))
        if argv[1] == self.refuses:
            return Finished(1, "", f"Failed to {argv[1]} unit: Access denied\n")
        match argv[1]:
            case "disable":
                file = _FILES[argv[3]]
                assert self.host.path(file).exists()  # as the real one insists
                self.host.path(enabled(file)).unlink(missing_ok=True)
                self.states[argv[3]] = "inactive"
            case "stop":
                self.states[argv[2]] = "inactive"
            case "daemon-reload":
                self.stale = False
            case "reset-failed":
                return Finished(1, "", f"Unit {argv[2]} not loaded.\n")
        return Finished(0, "", "")

    def enable(self) -> None:
        """``systemctl enable --now`` of both."""
        self.states = dict.fromkeys(_FILES, "active")
        for file in UNITS:
            link = self.host.path(enabled(file))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)

    def has_none_enabled(self) -> bool:
        """Whether no boot would start one."""
        return not any(self.host.path(enabled(file)).is_symlink() for file in UNITS)

    def install(self) -> None:
        files = payload.load(sys.executable)
        list(perform(plan_install(self.host, files, DockerConfig(self.host, self))))

    def uninstall(self) -> None:
        list(perform(plan_uninstall(self.host, DockerConfig(self.host, self), purge=False)))


@pytest.fixture(name="systemd")
def _systemd(host: Host) -> Systemd:
    host.path("/run/systemd/system").mkdir(parents=True)
    return Systemd(host)


def test_a_new_unit_is_read_once(systemd: Systemd) -> None:
    systemd.install()
    systemd.install()
    assert systemd.asked == ["daemon-reload"]


def test_an_install_that_was_killed_before_the_reload_makes_up_for_it(systemd: Systemd) -> None:
    systemd.install()
    systemd.asked.clear()
    systemd.stale = True
    systemd.install()
    assert systemd.asked == ["daemon-reload"]


def test_what_runs_is_stopped_before_its_unit_goes_the_mover_first(systemd: Systemd, host: Host) -> None:
    systemd.install()
    systemd.enable()
    systemd.asked.clear()
    systemd.uninstall()
    assert systemd.asked == [
        *(f"disable --now {name}" for name in (_MOVER, _AGENT)),
        *(f"reset-failed {name}" for name in (_MOVER, _AGENT)),
        "daemon-reload",
    ]
    assert set(systemd.states.values()) == {"inactive"}
    assert systemd.has_none_enabled()
    assert not any(host.path(file).exists() for file in UNITS)
    systemd.asked.clear()
    systemd.uninstall()
    assert systemd.asked == []


def test_an_agent_whose_unit_is_gone_already_is_stopped_too(systemd: Systemd, host: Host) -> None:
    systemd.install()
    systemd.enable()
    host.path(paths.AGENT_UNIT).unlink()
    systemd.asked.clear()
    systemd.uninstall()
    assert f"stop {_AGENT}" in systemd.asked
    assert systemd.has_none_enabled()


def test_what_cannot_be_stopped_keeps_its_unit(systemd: Systemd, host: Host) -> None:
    systemd.install()
    systemd.enable()
    systemd.refuses = "disable"
    with pytest.raises(
        InstallError, match=f"^systemctl disable --now {_MOVER}: Failed to disable unit: Access"
    ):
        systemd.uninstall()
    assert all(host.path(file).exists() for file in UNITS)
    systemd.refuses = ""
    systemd.uninstall()
    assert not any(host.path(file).exists() for file in UNITS)


def test_without_systemd_only_files_are_removed(host: Host) -> None:
    absent = Systemd(host)
    absent.install()
    absent.enable()
    absent.uninstall()
    assert absent.asked == []
    assert absent.has_none_enabled()
