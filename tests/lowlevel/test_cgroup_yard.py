"""What a killed CRIU has mounted in a checkpoint's folder is gone from there, and nothing of it is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import FakeRuntime, Installation

from migrrdma_runtime.criu import cgroup_yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A working directory with a yard in it, as CRIU leaves it, and the tree that is mounted there."""
    tree = tmp_path / "tree"
    (tree / "group").mkdir(parents=True)
    yard = mount_yard(tmp_path / "work", tree)
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


def mount_yard(work: Path, tree: Path | None) -> Path:
    """A yard as CRIU leaves it, with the one tree mounted in it or none."""
    yard = work / ".criu.cgyard.AbCdEf"
    yard.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "yard", yard], check=True)
    if tree is not None:
        (yard / "unified").mkdir()
        subprocess.run(["mount", "--bind", tree, yard / "unified"], check=True)
    return yard


def test_one_that_nobody_works_with_is_found_wherever_it_lies(tmp_path: Path) -> None:
    """Its CRIU and the runtime were killed, and systemd starts the agent, but this program before it."""
    (tmp_path / "tree" / "group").mkdir(parents=True)
    yard = mount_yard(tmp_path / "with a space", tmp_path / "tree")
    try:
        folder = os.open(yard, os.O_RDONLY)
        cgroup_yard.remove_orphans()
        assert (yard / "unified" / "group").is_dir(), "somebody works with it"
        os.close(folder)
        subprocess.run([sys.executable, "-I", "-m", cgroup_yard.__name__], check=True)
        assert list(yard.parent.iterdir()) == []
        assert (tmp_path / "tree" / "group").is_dir()
    finally:
        subprocess.run(["umount", "-R", yard], check=False, capture_output=True)


def test_what_is_no_yard_of_a_dead_criu_stays(tmp_path: Path) -> None:
    """Whatever a container may have put where its images are, or may have had mounted."""
    tree = tmp_path / "tree"
    tree.mkdir()
    begun = mount_yard(tmp_path / "begun", None)
    other = tmp_path / ".criu.cgyard.ZyXwVu"
    (other / "in").mkdir(parents=True)
    subprocess.run(["mount", "--bind", other, other], check=True)  # of no kind that CRIU mounts
    subprocess.run(["mount", "-t", "tmpfs", "tree", other / "in"], check=True)
    (tmp_path / "plain" / ".criu.cgyard.123456" / "unified").mkdir(parents=True)
    try:
        cgroup_yard.remove_orphans()
        assert os.path.ismount(begun)
        assert os.path.ismount(other / "in")
        assert (tmp_path / "plain" / ".criu.cgyard.123456" / "unified").is_dir()
    finally:
        subprocess.run(["umount", "-R", begun, other], check=False, capture_output=True)


_LEAVES = """
while [ $1 != --image-path ]; do shift; done
yard=$2/.criu.cgyard.AbCdEf
[ -e $2/dies ] || exit 0
mkdir $yard
mount -t tmpfs yard $yard
mkdir $yard/unified
mount --bind $2 $yard/unified
kill -9 $PPID
"""


def test_what_a_killed_runtime_has_left_the_next_restore_removes(
    installation: Installation, tmp_path: Path
) -> None:
    """Of whatever container, from whatever images."""
    runtime = FakeRuntime(tmp_path / "fake", _LEAVES)
    installation.configure(runtime=runtime.path)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text('{"ociVersion": "1.2.0", "process": {"args": ["/bin/true"]}}')
    first, second = tmp_path / "first", tmp_path / "second"
    for images in (first, second):
        images.mkdir()
    (first / "dies").touch()
    yard = first / ".criu.cgyard.AbCdEf"
    try:
        words: list[str | bytes | Path] = ["restore", "--detach", "--bundle", bundle, "--image-path"]
        killed = installation.run(*words, first, "first")
        assert killed.returncode == -signal.SIGKILL
        assert os.path.ismount(yard / "unified")
        done = installation.run(*words, second, "second")
        assert (done.returncode, done.stderr) == (0, b"")
        assert [one.name for one in first.iterdir()] == ["dies"]
    finally:
        subprocess.run(["umount", "-R", yard], check=False, capture_output=True)


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
