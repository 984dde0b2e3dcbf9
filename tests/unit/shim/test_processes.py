"""A container's processes are those in the cgroup that was made for it, wherever its first one has gone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migrrdma_runtime.shim import processes

ME = os.getpid()

RUNC = {"cgroup_paths": {"": "/sys/fs/cgroup/docker/c1"}}
RUNC_V1 = {
    "cgroup_paths": {
        "freezer": "/sys/fs/cgroup/freezer/docker/c1",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/docker/c1",
    }
}
RUNC_HYBRID = {"cgroup_paths": {"": "/sys/fs/cgroup/unified/docker/c1"}}
CRUN = {"cgroup-path": "/docker/c1"}


@pytest.fixture
def other() -> Iterator[int]:
    """Another process."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    ("name", "state"),
    [("state.json", RUNC), ("state.json", RUNC_V1), ("state.json", RUNC_HYBRID), ("status", CRUN)],
    ids=["runc", "runc on version 1", "runc on both", "crun"],
)
@pytest.mark.parametrize(
    ("first", "where", "inside"),
    [
        ("/docker/c1/init.scope", "/docker/c1/init.scope", True),
        (
            "/docker/c1/init.scope",
            "/docker/c1/system.slice/a.service",
            True,
        ),  # systemd's, or another container's
        ("/docker/c1/init.scope", "/docker/c1", True),
        ("/docker/c1/init.scope", "/docker/c12", False),
        ("/docker/c1/init.scope", "/docker", False),
        ("/docker/c1", "/docker/c1/nested", True),
        ("/elsewhere", "/elsewhere", True),  # somebody has moved it out: what it is in is all that is known
        ("/elsewhere", "/docker/c1", False),
    ],
)
def test_the_first_process_may_have_gone_into_a_cgroup_below(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    other: int,
    name: str,
    state: dict[str, Any],
    first: str,
    where: str,
    inside: bool,
) -> None:
    (tmp_path / name).write_text(json.dumps(state))
    hierarchies = ("4:freezer:", "3:cpu,cpuacct:") if state is RUNC_V1 else ("0::",)
    groups = {pid: [each + path for each in hierarchies] for pid, path in ((ME, first), (other, where))}
    monkeypatch.setattr(processes, "cgroups", lambda pid: groups.get(pid, []))
    assert set(processes.members(str(tmp_path), ME)) == ({ME, other} if inside else {ME})


@pytest.mark.parametrize(
    "text", ["", "[]", '{"cgroup_paths": null}', '{"cgroup_paths": []}', '{"cgroup_paths": 7}']
)
def test_a_state_that_says_nothing_leaves_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    (tmp_path / "state.json").write_text(text)
    monkeypatch.setattr(processes, "cgroups", lambda pid: ["0::/docker/c1/a"] if pid == ME else [])
    assert list(processes.members(str(tmp_path), ME)) == [ME]
