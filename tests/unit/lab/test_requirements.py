"""What the fast rack lacks on a machine is named, with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from migrrdma_lab.errors import RackError
from migrrdma_lab.namespaces import requirements


def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")


def test_a_kernel_without_a_namespace_is_told_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _as_root(monkeypatch)
    for name in ("mnt", "pid", "net", "uts", "ipc", "cgroup"):
        (tmp_path / name).touch()
    assert requirements.missing(tmp_path) == [
        "no time namespaces: a kernel with CONFIG_TIME_NS (since Linux 5.6)"
    ]


def test_every_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_root(monkeypatch)
    monkeypatch.setattr(
        "shutil.which", lambda name: None if name in ("ip", "unshare") else f"/usr/bin/{name}"
    )
    assert requirements.missing() == [
        f"{name} is not installed: lab/host-packages" for name in ("ip", "unshare")
    ]


def test_whoever_is_not_root_is_told_so_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(
        RackError, match=r"cannot run the fast rack:\n  it makes namespaces and mounts: run it as root$"
    ):
        requirements.check()
