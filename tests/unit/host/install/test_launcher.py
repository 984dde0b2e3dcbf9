"""The launcher: what it says, and what the kernel makes of it."""

import stat
from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import UsageError
from migrrdma_runtime.host.install import launcher


def test_it_is_written_whole_executable_and_over_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "migrrdma-runtime"
    path.write_text("old")
    launcher.write(path, "/usr/bin/python3")
    assert path.read_text().startswith("#!/usr/bin/python3 -ISXutf8\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("interpreter", "reason"),
    [
        ("python3", "must be an absolute path"),
        ("/opt/my python/bin/python3", "without spaces"),
        ("/" + "x" * 250, "too long for a script's first line"),
    ],
)
def test_an_interpreter_that_the_kernel_would_not_start_is_refused(
    tmp_path: Path, interpreter: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        launcher.write(tmp_path / "migrrdma-runtime", interpreter)
    assert not list(tmp_path.iterdir())
