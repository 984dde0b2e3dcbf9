"""The cgroup that runc will make for a container: by systemd.slice(5) and runc's names for its units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from migrrdma_runtime.base import config
from migrrdma_runtime.criu import cgroup
from migrrdma_runtime.shim import argv
from migrrdma_runtime.shim.prepare import prepare_bundle


def _spec(path: Any) -> dict[str, Any]:
    return {"linux": {"cgroupsPath": path}}


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("system.slice:docker:c1", "/system.slice/docker-c1.scope"),
        (":docker:c1", "/system.slice/docker-c1.scope"),
        ("kubepods-burstable-pod1.slice:cri-containerd:c1",
         "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c1.scope"),
        ("-.slice:docker:c1", "/docker-c1.scope"),
        ("machine.slice:libpod:mine.slice", "/machine.slice/mine.slice"),
        ("/docker/c1", "/docker/c1"),
        ("/docker//c1/", "/docker/c1"),
        # What cannot be told, or would be another option in CRIU's file.
        ("docker/c1", None),
        ("a:b", None),
        ("", None),
        (None, None),
        (1, None),
        ("/docker/c1\nlibdir /tmp", None),
        ("/docker/c1 --libdir", None),
    ],
)  # fmt: skip
def test_the_path_is_runcs(written: Any, path: str | None) -> None:
    assert cgroup.path_of(_spec(written), "c1") == path


def test_a_spec_without_linux_has_none() -> None:
    assert cgroup.path_of({}, "c1") is None
    assert cgroup.path_of({"linux": []}, "c1") is None


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ordinary container's, on a host with cgroup v2."""
    monkeypatch.setattr(cgroup, "is_unified", lambda: True)
    spec = {"ociVersion": "1.0.2", "linux": {"cgroupsPath": "system.slice:docker:c1"}}
    (tmp_path / "config.json").write_text(json.dumps(spec))
    return tmp_path


def _prepare(bundle: Path, command: str, runtime: str = "runc") -> dict[str, Any]:
    settings, _ = config.load()
    settings.runtime = runtime
    prepare_bundle(argv.parse([command, "--bundle", str(bundle), "c1"]), settings, None)
    prepared: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    return prepared


def test_an_ordinary_container_is_restored_into_its_own_cgroup(bundle: Path) -> None:
    for _ in range(2):  # as after a restore that failed
        annotations = _prepare(bundle, "restore")["annotations"]
        assert annotations == {"org.criu.config": f"{bundle}/migrrdma-criu.conf"}
    lines = (bundle / "migrrdma-criu.conf").read_text().splitlines()
    assert lines[-1] == "cgroup-root /system.slice/docker-c1.scope"
    assert not any("libdir" in line for line in lines)


def test_the_users_criu_configuration_comes_first(bundle: Path) -> None:
    (bundle / "users.conf").write_text("tcp-close\n")
    spec = json.loads((bundle / "config.json").read_text())
    spec["annotations"] = {"org.criu.config": f"{bundle}/users.conf", "kept": "yes"}
    (bundle / "config.json").write_text(json.dumps(spec))
    annotations = _prepare(bundle, "restore")["annotations"]
    assert annotations["org.migrrdma.criu-config"] == f"{bundle}/users.conf"
    assert annotations["kept"] == "yes"
    assert "tcp-close" in (bundle / "migrrdma-criu.conf").read_text()


@pytest.mark.parametrize(
    ("command", "runtime"), [("create", "runc"), ("run", "runc"), ("restore", "/usr/bin/crun")]
)
def test_everything_else_is_left_alone(bundle: Path, command: str, runtime: str) -> None:
    before = (bundle / "config.json").read_bytes()
    _prepare(bundle, command, runtime)
    assert (bundle / "config.json").read_bytes() == before
