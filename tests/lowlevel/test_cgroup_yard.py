"""What a killed CRIU has mounted in a checkpoint's folder is gone from there, and nothing of it is removed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import FakeRuntime, Installation

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


_RESTORES = """
case "$*" in *first) ;; *) exit 0 ;; esac
while [ $1 != --image-path ]; do shift; done
yard=$2/.criu.cgyard.AbCdEf
mkdir $yard
mount -t tmpfs yard $yard
echo begun
read -r go_on
mountpoint $yard
umount $yard
rmdir $yard
"""


def test_what_another_restore_works_with_stays(installation: Installation, tmp_path: Path) -> None:
    """Of the same images, which by runc's default are the working directory as well."""
    runtime = FakeRuntime(tmp_path / "fake", _RESTORES)
    installation.configure(runtime=runtime.path)
    images, bundle = tmp_path / "images", tmp_path / "bundle"
    images.mkdir()
    bundle.mkdir()
    (bundle / "config.json").write_text('{"ociVersion": "1.2.0", "process": {"args": ["/bin/true"]}}')
    words: list[str | bytes | Path] = ["restore", "--detach", "--image-path", images, "--bundle", bundle]
    go_on, tell = os.pipe()
    with subprocess.Popen(
        [installation.runtime, *words, "first"],
        env=installation.environment, stdin=go_on, stdout=subprocess.PIPE,
    ) as first:  # fmt: skip
        os.close(go_on)
        assert first.stdout is not None
        assert first.stdout.readline() == b"begun\n"
        second = installation.run(*words, "second")
        os.write(tell, b"go on\n")
        os.close(tell)
        said = first.stdout.read()
    assert (second.returncode, second.stderr) == (0, b"")
    assert said.endswith(b"is a mountpoint\n")
    assert first.returncode == 0
