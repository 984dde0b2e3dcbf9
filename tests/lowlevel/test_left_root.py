"""What a killed restore has left of a container is deleted without its files, and the name is free again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import Bundle
from installed import Installation

from migrrdma_runtime.shim import argv, left_root


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A container's root."""
    files = tmp_path / "root"
    (files / "etc").mkdir(parents=True)
    (files / "etc" / "hosts").touch()
    return files


@pytest.fixture
def left(installation: Installation, files: Path) -> Iterator[Path]:
    """What runc keeps of a container called c1 when it is killed while CRIU restores that."""
    installation.options = ("--root", installation.root / "containers")
    left = installation.root / "containers" / "c1"
    (left / "criu-root").mkdir(parents=True)
    subprocess.run(["mount", "--bind", files, left / "criu-root"], check=True)
    yield left
    subprocess.run(["umount", "--lazy", left / "criu-root"], check=False, capture_output=True)


@pytest.mark.parametrize(
    "words",
    [
        "delete --force c1",
        "delete --force -- c1",
        "--debug delete -f=true c1",
        "--root ./containers/ delete -f c1",
    ],
)
def test_its_files_stay_and_its_name_is_free(
    installation: Installation, left: Path, files: Path, bundle: Bundle, words: str
) -> None:
    deleted = installation.run(*words.split())
    assert deleted.returncode == 0, deleted.stderr
    assert (files / "etc" / "hosts").exists()
    assert not left.exists()
    bundle.command("true")
    installation.create(bundle.path)
    assert installation.run("delete", "--force", "c1").returncode == 0


def test_runc_by_itself_deletes_them(installation: Installation, left: Path, files: Path) -> None:
    """The reason for all of it: the day it does not, this module has no more use."""
    subprocess.run(
        ["runc", *installation.options, "delete", "--force", "c1"], check=False, capture_output=True
    )
    assert not (files / "etc").exists()
    assert left.exists()


@pytest.mark.parametrize("name", ["c2/../c1", "c2", "c3", ".", ".."])
def test_nothing_else_is_unmounted(left: Path, name: str) -> None:
    (left.parent / "c2").mkdir()
    (left.parent / "c2" / "criu-root").symlink_to(left / "criu-root")
    for around in (left.parent, left.parent.parent):
        (around / "criu-root").symlink_to(left / "criu-root")
    left_root.detach(argv.parse(["--root", str(left.parent), "delete", name]), "runc")
    assert str(left / "criu-root") in Path("/proc/self/mountinfo").read_text()
