"""A rack tests the build of this very tree: whatever goes into it makes another build when it changes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from migrrdma_lab import project
from migrrdma_lab.plan import REPOSITORY

_PARTS = [
    "migrrdma_runtime",
    *re.findall(r"^subdir\('(\w+)'\)", (REPOSITORY / "meson.build").read_text(), re.MULTILINE),
]


@pytest.mark.parametrize("part", _PARTS)
def test_a_change_to_any_part_makes_another_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(project, "REPOSITORY", tmp_path)
    before = project.tree_state()
    (tmp_path / part).mkdir()
    (tmp_path / part / "source").write_text("changed")
    assert project.tree_state() != before


def test_every_part_is_found() -> None:
    assert {"migrrdma_runtime", "guest", "launcher"} <= set(_PARTS)
