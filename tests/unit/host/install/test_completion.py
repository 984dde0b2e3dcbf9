"""The completion that install puts where the shells look for it, in the shells' own words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from migrrdma_runtime.host.install import payload
from migrrdma_runtime.host.install.payload import COMPLETIONS


@pytest.fixture(name="scripts")
def _scripts() -> dict[str, str]:
    files = {file.path: file.content.decode() for file in payload.load(sys.executable).completions}
    return {shell: files[path] for shell, path in COMPLETIONS.items()}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("migrrdma un", ["uninstall"]),
        ("migrrdma agent ca ", ["init", "issue", "request", "renew", "revoke", "list"]),
        ("migrrdma checkpoint import --st", ["--start"]),
    ],
)
def test_bash_completes_words(scripts: dict[str, str], tmp_path: Path, line: str, offered: list[str]) -> None:
    (tmp_path / "migrrdma").write_text(scripts["bash"])
    words = line.split(" ")
    program = (
        f"source {tmp_path}/migrrdma\n"
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        "_migrrdma_completion migrrdma\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", program],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert done.stdout.split() == offered, done.stderr


def test_zsh_and_fish_are_told_which_command_it_is_for(scripts: dict[str, str]) -> None:
    assert scripts["zsh"].startswith("#compdef migrrdma\n")
    assert "complete --command migrrdma " in scripts["fish"]
