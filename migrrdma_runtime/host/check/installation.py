"""Our own files on this host: in place, of this version, usable, and safe to run as root."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import migrrdma_runtime
from migrrdma_runtime.base import config, paths
from migrrdma_runtime.base.errors import RuntimeNotFoundError
from migrrdma_runtime.host.check.result import Machine, Result, failure, ok, warning
from migrrdma_runtime.host.install import payload
from migrrdma_runtime.host.install.install import is_in_place
from migrrdma_runtime.shim import lowlevel

_INSTALL = "migrrdma install"


def configuration(_machine: Machine) -> Result:
    """The configuration file is valid, or not there."""
    _, error = config.load()
    if error is not None:
        return failure(str(error), "correct it; until then RDMA containers are refused")
    there = Path(config.path()).exists()
    return ok(f"{config.path()} is valid" if there else f"no {config.path()}: every setting has its default")


def low_level_runtime(machine: Machine) -> Result:
    """The runtime that does the work."""
    configured, _ = config.load()
    try:
        path = lowlevel.find(configured.runtime)
    except RuntimeNotFoundError as error:
        return failure(str(error), "install runc (Debian: apt-get install runc)")
    done = machine.run([path, "--version"])
    if done is None or done.status != 0:
        return failure(f"{path} --version fails: {done.complaint if done else 'not found'}", "reinstall it")
    version = (done.stdout.strip().splitlines() or ["unknown version"])[0]
    if "crun" in version and "+CRIU" not in done.stdout:
        return failure(f"{path}: {version} was built without CRIU", "install a crun with +CRIU, or use runc")
    return ok(f"{path}: {version}")


def launcher(machine: Machine) -> Result:
    """The launcher, and the script that it starts Python by, are this package's and answer as the low-level runtime."""
    expected = payload.load(sys.executable).launchers
    for file in expected:
        path = machine.host.path(file.path)
        if not path.exists():
            return failure(f"{file.path} is missing", _INSTALL)
        done = machine.run([str(path), "--version"])
        if done is None or done.status != 0:
            why = done.complaint if done else "its interpreter is missing"
            return failure(f"{file.path} does not work: {why}", _INSTALL)
        if not is_in_place(machine.host, file):
            return warning(f"{file.path} was written by another installation of this package", _INSTALL)
    slow = len(expected) == 1
    return ok(f"{expected[-1].path} works{', through Python alone: this package has no launcher' * slow}")


def hooks(machine: Machine) -> Result:
    """Every hook is in place and of this version."""
    expected = payload.load(sys.executable).hooks
    if differing := [file.path for file in expected if not is_in_place(machine.host, file)]:
        return failure(f"missing or of another version: {', '.join(differing)}", _INSTALL)
    return ok(f"{len(expected)} hooks in {paths.HOOKS_DIR}")


def guest_library(machine: Machine) -> Result:
    """The guest library is in place and the one new containers get."""
    expected = payload.load(sys.executable)
    current = machine.host.path(f"{paths.GUEST_DIR}/current")
    if not is_in_place(machine.host, expected.guest_library):
        return failure(f"{expected.guest_library.path} is missing or changed", _INSTALL)
    if not current.is_symlink() or str(current.readlink()) != expected.build_id:
        return failure(f"{paths.GUEST_DIR}/current does not point at {expected.build_id}", _INSTALL)
    versions = sum(1 for path in current.parent.iterdir() if path.is_dir() and not path.is_symlink())
    return ok(f"build-id {expected.build_id}, {versions} version{'s' * (versions > 1)} kept")


def criu_plugin(machine: Machine) -> Result:
    """The plugin is in place and of this version."""
    expected = payload.load(sys.executable).criu_plugin
    if not is_in_place(machine.host, expected):
        return failure(f"{expected.path} is missing or of another version", _INSTALL)
    return ok(f"{expected.path} is in place")


def ownership(_machine: Machine) -> Result:
    """Docker runs the package as root, so nobody else may be able to change it."""
    package = Path(migrrdma_runtime.__file__).resolve().parent
    interpreter = Path(sys.executable).resolve()
    for path in (package, *package.parents, interpreter, *interpreter.parents):
        if is_open_to_others(path):
            return warning(
                f"others than root can change {path}, and so what Docker runs as root",
                "install the package below a directory of root's, /opt/migrrdma for instance",
            )
    return ok(f"only root can change {package}")


def is_open_to_others(path: Path) -> bool:
    """Whether a user other than root can replace ``path``, or something in it."""
    status = path.stat()
    shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    return bool(shared) or status.st_uid != 0
