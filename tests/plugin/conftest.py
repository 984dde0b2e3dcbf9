"""The plugin under the sanitisers, and a program that plays CRIU for it; root, as it looks into processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from criu_stand_in import StandIn

REPOSITORY = Path(__file__).resolve().parents[2]
_FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-O1",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
)  # fmt: skip


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Program, plugin and the fake sysfs below which the plugin looks devices up."""
    assert os.geteuid() == 0, "these tests trace processes and look at what they map: run them as root"
    compiler = shutil.which("gcc")
    assert compiler, "these tests need gcc"
    directory = tmp_path_factory.mktemp("criu")
    sysfs, program, plugin = directory / "sys", directory / "criu", directory / "migrrdma_plugin.so"
    sources = REPOSITORY / "criu_plugin"
    subprocess.run(
        [compiler, *_FLAGS, "-fPIC", "-shared", "-fvisibility=hidden", f'-DSYSFS="{sysfs}"',
         f"-I{REPOSITORY / 'guest'}",
         "-o", plugin, *sorted(sources.glob("*.c"))],
        check=True,
    )  # fmt: skip
    subprocess.run(
        [
            compiler,
            *_FLAGS,
            "-rdynamic",
            f"-I{sources}",
            "-o",
            program,
            Path(__file__).parent / "criu_stand_in.c",
        ],
        check=True,
    )
    # What everybody can open and map stands for a device of each kind.
    _device(sysfs, "/dev/zero", "infiniband_verbs", "uverbs0", "rxe0")
    _device(sysfs, "/dev/full", "infiniband_mad", "umad0")
    _device(sysfs, "/dev/urandom", "infiniband_mad", "issm0")
    _device(sysfs, "/dev/random", "misc", "rdma_cm")
    _device(sysfs, "/dev/null", "mem", "null")
    return program, plugin, sysfs


def _device(sysfs: Path, stand_in: str, subsystem: str, node: str, ibdev: str = "") -> None:
    """The links that the kernel has for a character device, with the number of ``stand_in``."""
    number = Path(stand_in).stat().st_rdev
    device = sysfs / "devices" / subsystem / node
    device.mkdir(parents=True)
    (sysfs / "class" / subsystem).mkdir(parents=True, exist_ok=True)
    (device / "subsystem").symlink_to(f"../../../class/{subsystem}")
    if ibdev:
        (device / "ibdev").write_text(f"{ibdev}\n")
    link = sysfs / "dev" / "char" / f"{os.major(number)}:{os.minor(number)}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(f"../../devices/{subsystem}/{node}")


@pytest.fixture
def old_criu(criu: StandIn) -> StandIn:
    """As ``criu``, from before the inventory image named plugins: 3.17 and 4.0."""
    older = criu.program.with_name("criu-3.17")
    subprocess.run(
        ["gcc", *_FLAGS, "-rdynamic", "-DBEFORE_INVENTORY", f"-I{REPOSITORY}/criu_plugin", "-o", older,
         Path(__file__).parent / "criu_stand_in.c"],
        check=True,
    )  # fmt: skip
    return replace(criu, program=older)


@pytest.fixture
def criu(built: tuple[Path, Path, Path], tmp_path: Path) -> StandIn:
    images = tmp_path / "images"
    images.mkdir()
    return StandIn(*built, images)
