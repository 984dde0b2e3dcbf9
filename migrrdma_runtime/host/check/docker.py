"""Docker: whether it answers, may checkpoint, and knows our runtime."""

from __future__ import annotations

import re
from typing import Any

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import DockerError, InstallError
from migrrdma_runtime.host.check.result import Machine, Result, failure, ok, warning
from migrrdma_runtime.host.install.docker_config import DEFAULT, NAME
from migrrdma_runtime.host.install.install import DOCKER, told
from migrrdma_runtime.host.install.record import FILE, load

_OLDEST = (20, 10)
_OWN_WAY_ENDS = 28
"""The first of whose daemons asks for the network namespace of a restored process before it has a pid."""
_UNEXAMINED = warning("not examined: Docker does not answer")
_NOT_MEANT = ok("not examined: this host was installed for Podman alone")


def daemon(machine: Machine) -> Result:
    """Reachable, recent enough, and not rootless."""
    if _is_left_out(machine):
        return _NOT_MEANT
    try:
        info = machine.docker().info()
    except DockerError as error:
        return failure(str(error), "install Docker or start it: systemctl start docker")
    version = str(info.get("ServerVersion", "of unknown version"))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < _OLDEST:
        return failure(f"Docker {version} is too old", "install Docker 20.10 or newer")
    if any("name=rootless" in option for option in info.get("SecurityOptions") or []):
        return failure(f"Docker {version} runs rootless, but CRIU needs root", "use the system's Docker")
    return ok(f"Docker {version}")


def experimental(machine: Machine) -> Result:
    """Docker offers checkpoints in experimental mode only."""
    info = _info(machine)
    if info is None:
        return _unexamined(machine)
    if not info.get("ExperimentalBuild"):
        return failure(
            "Docker's experimental mode is off, and docker checkpoint with it",
            f'set "experimental": true in {DEFAULT}, then systemctl restart docker (a reload is not enough)',
        )
    return ok("Docker's experimental mode is on")


def start_from_checkpoint(machine: Machine) -> Result:
    """Which way back from a checkpoint this Docker has; a plain start has no need of it."""
    info = _info(machine)
    if info is None:
        return _unexamined(machine)
    version = str(info.get("ServerVersion", ""))
    found = re.match(r"(\d+)\.", version)
    if found and int(found[1]) >= _OWN_WAY_ENDS:
        # With runc alone as well: "bind-mount /proc/0/ns/net …: no such file or directory".
        return ok(
            f"Docker {version} fails to docker start --checkpoint what has a network of its own; migrrdma checkpoint "
            "import and a plain docker start do it"
        )
    return ok(f"Docker {version} can docker start --checkpoint, and a plain docker start after an import")


def runtime(machine: Machine) -> Result:
    """Docker runs our launcher under our name."""
    info = _info(machine)
    if info is None:
        return _unexamined(machine)
    entry = (info.get("Runtimes") or {}).get(NAME)
    if entry is None:
        return failure(f'Docker knows no runtime "{NAME}"', "migrrdma install && systemctl reload docker")
    path = entry.get("path", "")
    if path != paths.RUNTIME:
        return failure(
            f'Docker\'s runtime "{NAME}" is {path or "not one with a path"}, not {paths.RUNTIME}',
            f"remove that entry from {DEFAULT}, then migrrdma install && systemctl reload docker",
        )
    return ok(f'Docker\'s runtime "{NAME}" is {path}')


def _unexamined(machine: Machine) -> Result:
    return _NOT_MEANT if _is_left_out(machine) else _UNEXAMINED


def _is_left_out(machine: Machine) -> bool:
    try:
        engines = told(load(machine.host.path(FILE)))
    except (InstallError, OSError):
        return False  # the record is root's to read
    return bool(engines) and DOCKER not in engines


def _info(machine: Machine) -> dict[str, Any] | None:
    if _is_left_out(machine):
        return None
    try:
        return machine.docker().info()
    except DockerError:
        return None
