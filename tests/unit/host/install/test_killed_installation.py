"""An install or uninstall killed at any system call that changes something: the next of either tidies up."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from kills import Action, every_kill, killed_at
from trees import Tree, tree_of

from migrrdma_runtime.host.install import leftovers, payload, record
from migrrdma_runtime.host.install.docker_config import DEFAULT, DockerConfig
from migrrdma_runtime.host.install.install import plan as plan_install
from migrrdma_runtime.host.install.payload import Payload
from migrrdma_runtime.host.install.step import locked, perform
from migrrdma_runtime.host.install.uninstall import plan as plan_uninstall
from migrrdma_runtime.host.machine import Finished, Host


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed, not the machine."""
    monkeypatch.setattr(os, "fsync", lambda _handle: None)


@pytest.fixture(name="files", scope="module")
def _files() -> Payload:
    return payload.load(sys.executable)


@pytest.fixture(name="docker")
def _docker(host: Host) -> DockerConfig:
    def no_dockerd(_argv: Sequence[str], /) -> Finished | None:
        return None

    return DockerConfig(host, no_dockerd)


@pytest.fixture(name="install")
def _install(host: Host, files: Payload, docker: DockerConfig) -> Action:
    def install() -> None:
        with locked(host.path("/run/migrrdma")):
            list(perform(plan_install(host, files, docker)))

    return install


@pytest.fixture(name="uninstall")
def _uninstall(host: Host, docker: DockerConfig) -> Action:
    def uninstall() -> None:
        with locked(host.path("/run/migrrdma")):
            list(perform(plan_uninstall(host, docker, purge=True)))

    return uninstall


@pytest.fixture(name="before", params=[None, '{"debug": true}\n'], ids=["no daemon.json", "daemon.json"])
def _before(request: pytest.FixtureRequest, host: Host) -> Tree:
    for name in ("/run", "/var/lib"):
        host.path(name).mkdir(parents=True)
    if request.param is not None:
        host.path(DEFAULT).parent.mkdir()
        host.path(DEFAULT).write_text(request.param)
    return tree_of(host)


def test_a_killed_install_is_taken_back_whole(
    host: Host, install: Action, uninstall: Action, before: Tree
) -> None:
    for number in every_kill(install):
        uninstall()
        assert tree_of(host) == before, f"killed at change {number}"


def test_a_killed_install_is_completed(host: Host, install: Action, uninstall: Action, before: Tree) -> None:
    install()
    complete = tree_of(host)
    uninstall()
    for number in every_kill(install):
        install()
        assert tree_of(host) == complete, f"killed at change {number}"
        uninstall()
        assert tree_of(host) == before, f"killed at change {number}"


@pytest.mark.usefixtures("before")
def test_after_a_killed_uninstall_either_goes_on(host: Host, install: Action, uninstall: Action) -> None:
    before = tree_of(host)
    install()
    complete = tree_of(host)
    for number in every_kill(uninstall):
        install()
        assert tree_of(host) == complete, f"killed at change {number}"
        killed_at(number, uninstall)
        uninstall()
        assert tree_of(host) == before, f"killed at change {number}"
        install()


def test_a_killed_upgrade_leaves_no_draft(host: Host, files: Payload, docker: DockerConfig) -> None:
    stale = host.path("/var/lib/migrrdma/guest/0123/.libmigrrdma.so.migrrdma")
    theirs = stale.with_name("notes")
    stale.parent.mkdir(parents=True)
    stale.touch()
    theirs.touch()
    hook = host.path("/usr/local/libexec/migrrdma/hooks/.of-an-older-version.migrrdma")
    hook.parent.mkdir(parents=True)
    hook.touch()
    list(perform(plan_install(host, files, docker)))
    assert not stale.exists()
    assert not hook.exists()
    assert theirs.exists()


def test_only_drafts_of_ours_are_taken_for_leftovers(host: Host) -> None:
    for name in (
        "/etc/docker/.daemon.json.swp",
        "/etc/docker/.other.migrrdma",
        "/usr/local/bin/.runc.migrrdma",
    ):
        host.path(name).parent.mkdir(parents=True, exist_ok=True)
        host.path(name).touch()
    folder = host.path("/usr/local/bin/.migrrdma-runtime.migrrdma")
    folder.mkdir()  # we make no such folder
    assert leftovers.plan(host, record.Record(), host.path(DEFAULT)) == []
    ours = Path("/etc/docker/.daemon.json.migrrdma")
    host.path(ours).touch()
    assert [step.what for step in leftovers.plan(host, record.Record(), host.path(DEFAULT))] == [str(ours)]
