"""A container is let go on that was frozen, and one that was paused before stays so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrrdma_runtime.shim import freezer


def _freezer_root() -> Path:
    root = Path(freezer.ROOT)
    if (root / "cgroup.controllers").exists():
        return root
    return root / "freezer" if (root / "freezer").is_dir() else root / "unified"


@pytest.fixture
def frozen() -> Iterator[tuple[int, Path]]:
    """A process in a cgroup below a container's, and the container's, which is frozen."""
    outer = _freezer_root() / f"migrrdma-test-{os.getpid()}"
    inner = outer / "nested"
    inner.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "100"])
    (inner / "cgroup.procs").write_text(str(process.pid))
    _set(outer, frozen=True)
    yield process.pid, outer
    _set(outer, frozen=False)
    process.kill()
    process.wait()
    for folder in (inner, outer):
        folder.rmdir()


def _set(folder: Path, *, frozen: bool) -> None:
    if (folder / "cgroup.freeze").exists():
        (folder / "cgroup.freeze").write_text(str(int(frozen)))
    else:
        (folder / "freezer.state").write_text("FROZEN" if frozen else "THAWED")


def test_it_is_the_containers_cgroup_that_is_found_and_opened(frozen: tuple[int, Path]) -> None:
    pid, outer = frozen
    assert freezer.closed(pid) == [str(outer)]
    freezer.open_again([str(outer), f"{outer}/gone"])
    assert freezer.closed(pid) == []
