"""What a killed CRIU has mounted in a checkpoint's folder is gone from there, and nothing of it is removed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrrdma_runtime.shim import cgroup_yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A working directory with a yard in it, as CRIU leaves it, and the tree that is mounted there."""
    tree = tmp_path / "tree"
    (tree / "group").mkdir(parents=True)
    yard = tmp_path / "work" / ".criu.cgyard.AbCdEf"
    yard.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "yard", yard], check=True)
    (yard / "unified").mkdir()
    subprocess.run(["mount", "--bind", tree, yard / "unified"], check=True)
    yield yard.parent, tree
    subprocess.run(["umount", "-R", yard], check=False, capture_output=True)


def test_it_is_unmounted_and_the_trees_stay(yard: tuple[Path, Path]) -> None:
    work, tree = yard
    (work / "dump.log").touch()
    cgroup_yard.remove(str(work))
    assert [one.name for one in work.iterdir()] == ["dump.log"]
    assert (tree / "group").is_dir()
    assert str(work) not in Path("/proc/self/mountinfo").read_text()


def test_what_only_has_its_name_is_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / ".criu.cgyard.link").symlink_to(kept)
    full = tmp_path / ".criu.cgyard.full"
    full.mkdir()
    (full / "file").touch()
    cgroup_yard.remove(str(tmp_path))
    assert kept.is_dir()
    assert (full / "file").exists()
    cgroup_yard.remove(str(tmp_path / "missing"))
