"""The user's CRIU configuration is copied if it is a file of a sane size; whatever else is named there is not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.criu import config


def _write(tmp_path: Path, users: str) -> str:
    return Path(config.write(str(tmp_path / "ours.conf"), users, cgroup="/x")).read_text()


def test_a_file_is_copied_and_one_that_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine.conf").write_text("tcp-established\n\n")
    assert _write(tmp_path, str(tmp_path / "mine.conf")).startswith(
        f"# From {tmp_path}/mine.conf:\ntcp-established\n\n# From migrrdma-runtime"
    )
    assert _write(tmp_path, str(tmp_path / "none.conf")).startswith("# From migrrdma-runtime")


def test_files_that_are_unlinked_are_dumped_whatever_their_size_unless_the_user_has_a_limit(
    tmp_path: Path,
) -> None:
    """CRIU takes what it reads last."""
    mine = tmp_path / "mine.conf"
    mine.write_text("ghost-limit 2M\n")

    def limits(plugin: str | None) -> list[str]:
        target = str(tmp_path / "ours.conf")
        written = Path(config.write(target, str(mine), cgroup=None, plugin=plugin)).read_text()
        return [line for line in written.splitlines() if line.startswith("ghost-limit")]

    assert limits(str(tmp_path / "migrrdma_plugin.so")) == ["ghost-limit 1048576G", "ghost-limit 2M"]
    assert limits(None) == ["ghost-limit 2M"]


@pytest.mark.parametrize("named", ["/dev/zero", "/dev/null", "/proc", "fifo"])
def test_what_is_no_regular_file_is_refused_by_name(tmp_path: Path, named: str) -> None:
    """A device is read without an end, and a pipe is waited for."""
    os.mkfifo(tmp_path / "fifo")
    path = str(tmp_path / named)
    with pytest.raises(SpecError, match=r"org.criu.config\), is not a regular file") as failure:
        _write(tmp_path, path)
    assert str(failure.value).startswith(path)


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SpecError, match="has 1099511627776 bytes; 1048576 are the most"):
        _write(tmp_path, str(tmp_path / "huge"))
