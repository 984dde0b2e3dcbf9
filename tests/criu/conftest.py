"""The plugin under the sanitisers, and a program that plays CRIU for it. Root: it looks into other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-O1",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
)  # fmt: skip


@dataclass(frozen=True)
class StandIn:
    """The program that plays CRIU, the plugin, and the sysfs that the plugin was built to believe."""

    program: Path
    plugin: Path
    sysfs: Path
    images: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it; a sanitiser's finding fails the test, whatever else came out."""
        result = subprocess.run(
            [*words], capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1", **environment},
        )  # fmt: skip
        assert "Sanitizer" not in result.stderr and "runtime error" not in result.stderr, result.stderr
        assert result.returncode in (0, 1), (result.stdout, result.stderr)
        return result

    def dump(
        self, *command: str, stage: str = "dump", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Dump ``command``, which prints "ready" when it holds what it is to hold."""
        # LeakSanitizer cannot look at a process that traces others.
        environment.setdefault("ASAN_OPTIONS", "detect_leaks=0")
        return self.run(str(self.program), str(self.plugin), str(self.images), stage, *command, **environment)

    def restore(self, *what: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Restore as process 1 of a pid namespace, so that the test knows its pid."""
        words = [str(self.program), str(self.plugin), str(self.images), "restore", *map(str, what)]
        environment.setdefault("ASAN_OPTIONS", "detect_leaks=0")
        return self.run("unshare", "--pid", "--fork", *words, **environment)

    def judge(self, directory: Path) -> dict[str, bool]:
        """Whether each image below ``directory`` is taken."""
        result = self.run(str(self.program), str(self.plugin), str(directory), "judge")
        answers = [line.split() for line in result.stdout.splitlines()]
        return {name: answer == "0" for name, _, answer in answers}


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
def criu(built: tuple[Path, Path, Path], tmp_path: Path) -> StandIn:
    images = tmp_path / "images"
    images.mkdir()
    return StandIn(*built, images)
