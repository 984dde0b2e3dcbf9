"""The software device's engine: every case is a phrase in `tests/device/engine/*.c`, on a clock that the test moves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from guest_build import SANITIZERS, STRICT

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "lab" / "device" / "engine"
SOURCES = sorted(Path(__file__).with_name("engine").glob("*.c"))
CASES = sorted({name for path in SOURCES for name in re.findall(r"^CASE\((\w+)\)", path.read_text(), re.M)})


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of all cases, with the address and undefined-behaviour sanitizers."""
    program = tmp_path_factory.mktemp("engine") / "cases"
    subprocess.run(
        ["gcc", *STRICT, "-D_GNU_SOURCE", *SANITIZERS["address"], f"-I{ENGINE}",
         *map(str, SOURCES), *map(str, sorted(ENGINE.glob("*.c"))), "-o", str(program)],
        check=True,
    )  # fmt: skip
    return program


@pytest.mark.parametrize("case", CASES)
def test_engine(cases: Path, case: str) -> None:
    done = subprocess.run([cases, case], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{case}: {done.stderr[:2000]}"


def test_no_case_is_forgotten(cases: Path) -> None:
    listed = subprocess.run([cases], capture_output=True, text=True, check=True, timeout=10).stdout.split()
    assert sorted(listed) == CASES


def test_the_engine_is_plain_c11_and_links_nothing_but_the_c_library(tmp_path: Path) -> None:
    library = tmp_path / "libengine.so"
    subprocess.run(
        ["gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-Wl,-z,defs",
         *map(str, sorted(ENGINE.glob("*.c"))), "-o", str(library)],
        check=True,
    )  # fmt: skip
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"NEEDED.*\[(.*)\]", needed) == ["libc.so.6"]
