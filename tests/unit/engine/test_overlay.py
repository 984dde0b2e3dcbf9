"""Where a container's layer is, from what the kernel and containerd say of its mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import EngineError
from migrrdma_runtime.engine import overlay


@pytest.fixture(name="mountinfo")
def _mountinfo(tmp_path: Path) -> Path:
    (tmp_path / "proc/7").mkdir(parents=True)
    return tmp_path / "proc/7/mountinfo"


def test_the_layer_of_a_process_is_its_roots(tmp_path: Path, mountinfo: Path) -> None:
    mountinfo.write_text(
        "1 2 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l\\040a:/m,upperdir=/s/1\\0402/fs,workdir=/s/1/work\n"
        "3 1 0:51 / /mnt rw - overlay overlay rw,lowerdir=/x,upperdir=/y,workdir=/z\n"
    )
    assert overlay.upper_of_process(tmp_path, 7) == Path("/s/1 2/fs")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1 2 8:1 / / rw - ext4 /dev/sda1 rw\n", "its root is no overlay but ext4"),
        ("1 2 0:50 / / ro - overlay overlay ro,lowerdir=/a:/b\n", "no upper directory"),
        ("", "process 7 has no root"),
    ],
)
def test_without_a_layer_it_says_why(tmp_path: Path, mountinfo: Path, lines: str, said: str) -> None:
    mountinfo.write_text(lines)
    with pytest.raises(EngineError, match=said):
        overlay.upper_of_process(tmp_path, 7)


def test_a_process_that_has_ended_has_none(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="process 8: its mounts cannot be read"):
        overlay.upper_of_process(tmp_path, 8)


def _containerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "ctr").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ctr").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_the_layer_of_a_snapshot_is_what_would_be_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = "mount -t overlay overlay / -o index=off,workdir=/s/3/work,upperdir=/s/3/fs,lowerdir=/s/1/fs"
    _containerd(tmp_path, monkeypatch, f'echo "$*" >{tmp_path}/asked; echo "{mounts}"')
    assert overlay.upper_of_snapshot("moby", "c0ffee") == Path("/s/3/fs")
    asked = "--namespace moby snapshots --snapshotter overlayfs mounts / c0ffee"
    assert (tmp_path / "asked").read_text().strip() == asked


def test_containerds_refusal_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _containerd(tmp_path, monkeypatch, "echo 'ctr: snapshot c0ffee does not exist' >&2; exit 1")
    with pytest.raises(EngineError, match="snapshot c0ffee: ctr: snapshot c0ffee does not exist"):
        overlay.upper_of_snapshot("moby", "c0ffee")
    (tmp_path / "ctr").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="ctr cannot be asked"):
        overlay.upper_of_snapshot("moby", "c0ffee")
