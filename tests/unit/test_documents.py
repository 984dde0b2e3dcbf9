"""What the documents name is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_DOCUMENTS = sorted(
    [*_REPOSITORY.glob("*.md"), *_REPOSITORY.glob("*/README.md"), *_REPOSITORY.glob("docs/*.md")]
)

_PATH = re.compile(r"(?<![\w/.<$…-])(?:[\w-][\w.-]*/)*[\w-]+\.(?:py|c|h|md|build)\b(?![/*])")
"""A source file with or without folders; nothing that begins with a slash, which is a host's."""

_OTHERS = {"runtime.py", "verbs.h", "migrrdma_plugin.so"}
"""What an installation or another project calls so."""


def _files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=_REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    return [f"/{name}" for name in listed.stdout.splitlines() if (_REPOSITORY / name).exists()]


def _missing(text: str, files: list[str]) -> list[str]:
    named = {found.group() for found in _PATH.finditer(text)} - _OTHERS
    return sorted(
        name for name in named if not any(file.endswith(f"/{PurePosixPath(name)}") for file in files)
    )


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(_REPOSITORY)))
def test_every_source_file_that_a_document_names_exists(document: Path) -> None:
    assert _missing(document.read_text(encoding="utf-8"), _files()) == []


def test_a_file_that_was_renamed_is_found() -> None:
    files = ["/lab/migrrdma_lab/plan.py", "/guest/path/send.c"]
    assert _missing("`plan.py`, `path/send.c`, /usr/include/x.h, …/y.c", files) == []
    assert _missing("`lab/plan.py`, `send.h`", files) == ["lab/plan.py", "send.h"]
