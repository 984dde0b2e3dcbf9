"""The launcher under the sanitisers, at home in a temporary directory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from launcher_site import SANITIZERS, SOURCES, STRICT, Site

from migrrdma_runtime.shim import lowlevel


@pytest.fixture(scope="session")
def deciding_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher's own sources under the sanitisers, with a ``main`` that answers many calls."""
    program = tmp_path_factory.mktemp("launcher") / "decide"
    sources = [path for path in sorted(SOURCES.glob("*.c")) if path.name != "main.c"]
    subprocess.run(
        ["gcc", *STRICT, *SANITIZERS, '-DUSUAL_DIRS="/nowhere"', f"-I{SOURCES}", "-o", program,
         Path(__file__).with_name("decide.c"), *sources],
        check=True,
    )  # fmt: skip
    return program


@pytest.fixture
def site(tmp_path: Path, deciding_program: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(lowlevel, "_USUAL_DIRS", "/nowhere")
    site = Site(tmp_path, deciding_program, monkeypatch)
    yield site
    site.close()
