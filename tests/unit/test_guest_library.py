"""The guest library's file: it needs nothing, shows nothing, and disturbs nobody."""

import re
import subprocess
from pathlib import Path

import pytest
from installed import Installation

from migrrdma_runtime.base import paths


@pytest.fixture
def library(installation: Installation) -> Path:
    return installation.guest_dir / "current" / paths.GUEST_LIBRARY


def _readelf(library: Path, *options: str) -> str:
    return subprocess.run(
        ["readelf", "-W", *options, library], capture_output=True, text=True, check=True
    ).stdout


def _symbols(library: Path) -> list[list[str]]:
    """The dynamic symbols: number, value, size, type, binding, visibility, section, name."""
    lines = [line.split() for line in _readelf(library, "--dyn-syms").splitlines()]
    return [fields for fields in lines if len(fields) == 8 and fields[0].rstrip(":").isdigit()]


def test_it_loads_with_any_c_library(library: Path) -> None:
    assert "(NEEDED)" not in _readelf(library, "--dynamic")
    undefined = [fields for fields in _symbols(library) if fields[6] == "UND"]
    assert undefined, "the library is expected to use the C library, weakly"
    # The compiler calls these by itself, and every C library has them.
    assert {fields[7] for fields in undefined if fields[4] != "WEAK"} <= {
        "memcmp",
        "memcpy",
        "memmove",
        "memset",
    }
    # Neither a symbol version nor a name that only glibc has.
    assert not [fields[7] for fields in undefined if "@" in fields[7] or fields[7].endswith("64")]


def test_it_exports_verbs_and_the_two_lookups_only(library: Path) -> None:
    exported = [fields for fields in _symbols(library) if fields[6] not in ("UND", "ABS")]
    names = {fields[7].split("@")[0] for fields in exported}
    other = {
        name for name in names if not re.match(r"_?ibv_|((mlx[45]|efa|hns|mana)dv|(bnxt_re|ionic)_dv)_", name)
    }
    assert other == {"dlsym", "dlvsym"}
    # As libibverbs has them: a program built against it finds them under these versions.
    assert {fields[7] for fields in exported} >= {
        "ibv_open_device@@IBVERBS_1.1",
        "ibv_create_comp_channel@@IBVERBS_1.0",
    }


def test_it_has_the_build_id_that_names_its_version(library: Path) -> None:
    assert re.search(r"Build ID: [0-9a-f]{40}\b", _readelf(library, "--notes"))


def test_it_needs_no_executable_stack(library: Path) -> None:
    (stack,) = re.findall(r"GNU_STACK.*", _readelf(library, "--segments"))
    assert " RW " in stack


def _load(library: Path, log: str | None) -> subprocess.CompletedProcess[str]:
    """Run a shell with the library in it."""
    environment = {"LD_PRELOAD": str(library)} | ({"MIGRRDMA_LOG": log} if log is not None else {})
    return subprocess.run(
        ["/bin/sh", "-c", "while read line; do echo $line; done </proc/$$/maps"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("log", [None, "", "info", "info:", "info:/nowhere/log"])
def test_it_is_silent_unless_it_can_log(library: Path, log: str | None) -> None:
    result = _load(library, log)
    assert str(library.resolve()) in result.stdout
    assert result.stderr == ""


def test_its_log_gets_one_line_per_process(library: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert _load(library, f"info:{log}").stderr == ""
    _load(library, f"info:{log}")
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(r"migrrdma\[\d+\] info: the guest library is loaded", line)
