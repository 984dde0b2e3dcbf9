"""``migrrdma inspect CONTAINER``: whose processes are looked into."""

from __future__ import annotations

import os

import pytest
from typer.testing import CliRunner

from migrrdma_runtime import cli
from migrrdma_runtime.base.errors import DockerError, InspectionError
from migrrdma_runtime.commands import inspect
from migrrdma_runtime.inspection.process import Process, Thread

ID = "c0" * 32


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container in which this process and its parent run; this one has the guest library."""
    inside = (os.getpid(), os.getppid())
    monkeypatch.setattr(
        inspect, "_cgroup", lambda pid: f"0::/system.slice/docker-{ID}.scope\n" if pid in inside else "0::/\n"
    )
    monkeypatch.setattr(
        inspect,
        "look_into",
        lambda pid: Process(
            pid,
            "quiesced" if pid == os.getpid() else "",
            ["a \x1b[2Jqueue"],
            threads=[Thread(pid, "main", "stopped by a signal", "futex", "ibv_reg_mr", 12.4)],
        ),
    )


@pytest.mark.usefixtures("container")
def test_of_a_container_those_with_the_library_are_shown() -> None:
    lines = CliRunner().invoke(cli.app, ["inspect", ID]).output.splitlines()
    pid = os.getpid()
    assert lines == [
        f"process {pid}: quiesced",
        f"  what it waits for: thread {pid} is stopped by a signal",
        "  cannot be migrated: a \\x1b[2Jqueue",
        f"  thread {pid} (main): stopped by a signal, in futex; has been in ibv_reg_mr for 12 s",
    ]


def test_a_container_in_which_nothing_runs_is_an_error() -> None:
    error = CliRunner().invoke(cli.app, ["inspect", ID]).exception
    assert isinstance(error, InspectionError)
    assert str(error) == f"no process runs in a container {ID}: give a process's number"


def test_without_docker_a_name_is_no_use_and_the_error_says_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> None:
        raise DockerError("Docker cannot be reached: No such file or directory")

    monkeypatch.setattr("migrrdma_runtime.engine.docker.DockerDaemon", nobody)
    error = CliRunner().invoke(cli.app, ["inspect", "web"]).exception
    assert isinstance(error, InspectionError)
    assert str(error).endswith("a process's number or a container's whole id needs no Docker")
