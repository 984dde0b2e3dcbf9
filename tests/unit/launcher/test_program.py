"""The launcher as a program: what it becomes, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from installed import FakeRuntime, Installation
from launcher_site import SANITIZERS, SOURCES, STRICT

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import RuntimeNotFoundError
from migrrdma_runtime.host.install import payload
from migrrdma_runtime.shim import lowlevel


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("launcher") / "migrrdma-runtime"
    subprocess.run(
        ["gcc", *STRICT, *SANITIZERS, f"-I{SOURCES}", "-o", program, *sorted(SOURCES.glob("*.c"))], check=True
    )
    return program


@pytest.fixture(params=["as shipped", "sanitized"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def installation(installation: Installation, variant: str, request: pytest.FixtureRequest) -> Installation:
    if variant == "sanitized":
        shutil.copy(request.getfixturevalue("sanitized"), installation.runtime)
    return installation


@pytest.fixture
def python(installation: Installation) -> FakeRuntime:
    """A recorder in place of the script that starts Python."""
    return FakeRuntime(installation.script, "")


@pytest.fixture
def runc(installation: Installation) -> FakeRuntime:
    fake = FakeRuntime(installation.root / "runc", "")
    installation.configure(runtime=fake.path)
    return fake


@pytest.mark.parametrize("name", ["migrrdma-runtime", "link"])
def test_what_is_not_passed_on_comes_to_python_as_it_was(
    installation: Installation, python: FakeRuntime, runc: FakeRuntime, name: str
) -> None:
    if name == "link":
        (installation.root / name).symlink_to(installation.runtime)
        installation.runtime = installation.root / name
    args = [b"--root", b"\xff\n", b"restore", b"", b"--", b"c1"]
    assert installation.run(*args).returncode == 0
    assert python.arguments() == args
    assert not runc.was_called


def test_what_is_passed_on_starts_no_python(
    installation: Installation, python: FakeRuntime, runc: FakeRuntime
) -> None:
    args = [b"--root", b"\xff\n", b"state", b"", b"--", b"c1"]
    assert installation.run(*args).returncode == 0
    assert runc.arguments() == args
    assert not python.was_called


def test_a_runtime_that_cannot_be_executed_is_pythons_to_explain(installation: Installation) -> None:
    runc = installation.root / "runc"
    runc.write_bytes(b"\x7fELF, but no program")
    runc.chmod(0o755)
    installation.configure(runtime=runc)
    result = installation.run("state", "c1")
    assert result.returncode == 1
    assert f'msg="cannot run the low-level runtime {runc}: Exec format error"' in result.stderr.decode()


def test_without_its_script_it_says_what_to_do(installation: Installation, runc: FakeRuntime) -> None:
    installation.script.unlink()
    result = installation.run("restore", "c1")
    reason = f"cannot run {installation.script.resolve()}: No such file or directory; run `migrrdma install`"
    assert (result.returncode, result.stderr.decode()) == (1, f"migrrdma-runtime: {reason}\n")
    assert installation.run("state", "c1").returncode == 0, "a call of runc's alone needs no script"
    assert runc.was_called


def test_replaced_while_it_starts_it_still_finds_its_script(
    installation: Installation, python: FakeRuntime
) -> None:
    """An upgrade unlinks the program that a container start has just become."""
    with installation.runtime.open("rb") as program:
        installation.runtime.unlink()
        subprocess.run(
            [installation.runtime, "restore", "c1"],
            executable=f"/proc/self/fd/{program.fileno()}",
            pass_fds=[program.fileno()],
            env=installation.environment,
            check=True,
        )
    assert python.arguments() == [b"restore", b"c1"]


def test_it_never_takes_itself_for_the_low_level_runtime(
    installation: Installation, python: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = installation.root / "bin" / "runc"
    own.parent.mkdir()
    shutil.copy(installation.runtime, own)
    installation.config.write_text("")
    assert (
        installation.run("state", "c1", environment={"PATH": f"{own.parent}:{os.environ['PATH']}"}).returncode
        == 0
    )
    assert python.arguments() == [b"state", b"c1"]
    monkeypatch.setenv("PATH", str(own.parent))
    monkeypatch.setattr(lowlevel, "_USUAL_DIRS", "/nowhere")
    with pytest.raises(RuntimeNotFoundError, match="which is migrrdma-runtime itself"):
        lowlevel.find("runc")


def test_install_puts_it_where_it_finds_its_script() -> None:
    script, program = payload.load(sys.executable).launchers
    assert (script.path, program.path) == (paths.RUNTIME_SCRIPT, paths.RUNTIME)
    assert Path(paths.RUNTIME_SCRIPT) == Path(paths.RUNTIME).parent.parent / "libexec/migrrdma/runtime.py"
    assert program.content.startswith(b"\x7fELF")
    assert {stat.S_IMODE(file.mode) for file in (script, program)} == {0o755}


def test_as_shipped_it_needs_no_dynamic_linker() -> None:
    program = payload.load(sys.executable).launchers[-1].content
    assert b"ld-linux" not in program[:4096]
