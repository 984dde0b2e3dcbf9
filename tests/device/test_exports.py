"""The stand-in exports what libibverbs does, so that everything that was linked against one is loaded on it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from migrrdma_lab.device.build import build_library

REAL = Path("/usr/lib/x86_64-linux-gnu/libibverbs.so.1")

LATER = {"ibv_cmd_create_cq_ex2@@IBVERBS_PRIVATE_34", "ibv_wr_opcode_str@@IBVERBS_PRIVATE_34"}
"""What rdma-core 56 has and 44 has not."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "libibverbs.so.1"
    build_library(path)
    return path


def exported(library: Path) -> set[str]:
    """Names with their versions, `@@` before the default one."""
    out = subprocess.run(
        ["nm", "-D", "--defined-only", "--with-symbol-versions", library],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    symbols = (line.split()[-2:] for line in out.splitlines())
    return {name for kind, name in symbols if kind != "A"}


def test_names_and_versions_are_those_of_the_real_one(library: Path) -> None:
    ours, real = exported(library), exported(REAL)
    assert len(real) > 170
    assert real - ours == set()
    assert ours - real <= LATER


@pytest.mark.parametrize("provider", ["libmlx5.so.1", "libefa.so.1", "librdmacm.so.1"])
def test_what_is_linked_against_libibverbs_is_loaded(library: Path, provider: str) -> None:
    script = f"import ctypes; ctypes.CDLL({provider!r}); print(open('/proc/self/maps').read())"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "LD_BIND_NOW": "1"}
    result = subprocess.run(
        ["python3", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert str(library) in result.stdout
    assert str(REAL.resolve()) not in result.stdout
