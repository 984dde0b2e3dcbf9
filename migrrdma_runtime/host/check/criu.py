"""CRIU: whether it is there and what it says about this kernel."""

from __future__ import annotations

import re
import sys

from migrrdma_runtime.base import config
from migrrdma_runtime.host.check.result import Machine, Result, failure, ok, warning
from migrrdma_runtime.host.install import payload
from migrrdma_runtime.host.install.install import is_in_place

_OLDEST = (3, 17)
_COMMITS_LATE = (4, 1)
"""The first that has a plugin prove at the dump what the restore will need (docs/criu.md)."""
_VERSION = re.compile(r"Version: (\d+)\.(\d+)\S*")
_INSTALL = "install CRIU (Debian: apt-get install criu)"
_UNEXAMINED = "not examined: CRIU is missing"
_NEEDS_ROOT = warning("not examined: criu check needs root", "run migrrdma check with sudo")


def version(machine: Machine) -> Result:
    """Presence and release."""
    done = machine.run(["criu", "--version"])
    if done is None:
        return failure("CRIU is not installed", _INSTALL)
    found = _VERSION.search(done.stdout)
    if done.status != 0 or found is None:
        return failure(f"criu --version fails: {done.complaint}", "reinstall CRIU")
    number = found[0].removeprefix("Version: ")
    if (int(found[1]), int(found[2])) < _OLDEST:
        return failure(f"CRIU {number} is too old", f"install CRIU {_OLDEST[0]}.{_OLDEST[1]} or newer")
    return ok(f"CRIU {number}")


def late_commit(machine: Machine) -> Result:
    """Whether a restore is committed before the application's first instruction."""
    configured, _ = config.load()
    later = "a restore is committed after the application has gone on, with its verbs held back"
    if not configured.late_commit:
        return warning(
            f"{later}: {config.path()} has late_commit = false", "set it to true, on all hosts (docs/criu.md)"
        )
    done = machine.run(["criu", "--version"])
    found = _VERSION.search(done.stdout) if done is not None else None
    if found is None:
        return warning(_UNEXAMINED, _INSTALL)
    if (int(found[1]), int(found[2])) < _COMMITS_LATE:
        return warning(
            f"{later}: CRIU {found[1]}.{found[2]} has no hook for it",
            "install CRIU 4.1 or newer, on all hosts",
        )
    if not is_in_place(machine.host, payload.load(sys.executable).criu_plugin):
        return warning(f"{later}: our plugin for CRIU is missing or of another version", "migrrdma install")
    return ok("a restore is committed before the application's first instruction")


def check(machine: Machine) -> Result:
    """``criu check``: can it dump and restore at all on this kernel."""
    if not machine.is_root:
        return _NEEDS_ROOT
    done = machine.run(["criu", "check"])
    if done is None:
        return warning(_UNEXAMINED, _INSTALL)
    if done.status != 0:
        return failure(f"criu check: {done.complaint}", "install a CRIU that knows this kernel")
    return ok("criu check finds everything it needs in this kernel")


def dirty_tracking(machine: Machine) -> Result:
    """Whether memory can be sent in rounds while the application runs."""
    if not machine.is_root:
        return _NEEDS_ROOT
    done = machine.run(["criu", "check", "--feature", "mem_dirty_track"])
    if done is None:
        return warning(_UNEXAMINED, _INSTALL)
    if done.status != 0:
        return warning(
            f"no dirty-page tracking, so memory can only be copied while stopped: {done.complaint}",
            "boot a kernel with CONFIG_MEM_SOFT_DIRTY if downtime matters",
        )
    return ok("dirty pages can be tracked, memory can be copied ahead")
