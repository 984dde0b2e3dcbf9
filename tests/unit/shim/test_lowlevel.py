"""Finding the low-level runtime, and never ourselves."""

import shutil
import sys
from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import RuntimeNotFoundError
from migrrdma_runtime.host.install import launcher
from migrrdma_runtime.shim import lowlevel


def _executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _no_usual_dirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowlevel, "_USUAL_DIRS", "/nowhere")


def test_a_name_is_found_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "runc").mkdir(parents=True)  # a directory is not a program
    wanted = _executable(tmp_path / "b" / "runc")
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    assert lowlevel.find("runc") == str(wanted)


def test_a_name_is_found_where_daemons_do_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _executable(tmp_path / "sbin" / "runc")
    monkeypatch.setattr(lowlevel, "_USUAL_DIRS", f"{tmp_path}/sbin")
    monkeypatch.delenv("PATH")
    assert lowlevel.find("runc") == str(wanted)


def test_the_current_directory_is_never_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _executable(tmp_path / "runc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ":.")
    with pytest.raises(RuntimeNotFoundError):
        lowlevel.find("runc")


@pytest.mark.parametrize("disguise", ["symlink", "copy", "another installation"])
def test_our_own_launcher_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disguise: str
) -> None:
    ours, fake = tmp_path / "migrrdma-runtime", tmp_path / "a" / "runc"
    fake.parent.mkdir()
    launcher.write(ours, sys.executable)
    if disguise == "symlink":
        fake.symlink_to(ours)
    elif disguise == "copy":
        shutil.copy(ours, fake)
    else:
        launcher.write(fake, "/opt/python/bin/python3")
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    with pytest.raises(RuntimeNotFoundError, match=rf"'runc' is {fake}, which is migrrdma-runtime itself"):
        lowlevel.find("runc")
    wanted = _executable(tmp_path / "b" / "runc")
    assert lowlevel.find("runc") == str(wanted)


def test_a_missing_runtime_is_named_with_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:relative:{tmp_path}")
    monkeypatch.setenv("MIGRRDMA_CONFIG", "/etc/x.toml")
    with pytest.raises(RuntimeNotFoundError) as caught:
        lowlevel.find("norunc")
    assert str(caught.value) == (
        f"cannot find the low-level runtime 'norunc' in {tmp_path}, /nowhere: "
        "install it, or set `runtime` in /etc/x.toml"
    )


def test_a_path_that_is_no_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeNotFoundError, match=f"the low-level runtime {tmp_path}/no does not exist"):
        lowlevel.find(f"{tmp_path}/no")
    (tmp_path / "data").touch()
    with pytest.raises(RuntimeNotFoundError, match=f"{tmp_path}/data is not an executable file"):
        lowlevel.find(f"{tmp_path}/data")


@pytest.mark.parametrize(
    ("runtime", "uid", "xdg", "root"),
    [
        ("/usr/sbin/runc", 0, "/run/user/0", "/run/runc"),
        ("/usr/sbin/runc", 1000, "/run/user/1000", "/run/user/1000/runc"),
        ("/usr/sbin/runc", 1000, "", "/run/runc"),
        ("/usr/bin/crun", 0, "", "/run/crun"),
        ("/usr/bin/crun", 1000, "/run/user/1000", "/run/user/1000/crun"),
    ],
)
def test_the_default_root_follows_the_runtimes_rules(
    monkeypatch: pytest.MonkeyPatch, runtime: str, uid: int, xdg: str, root: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", xdg)
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert lowlevel.default_root(runtime) == root
