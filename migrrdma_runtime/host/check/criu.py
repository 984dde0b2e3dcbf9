"""CRIU: whether it is there and what it says about this kernel."""

from __future__ import annotations

import re

from migrrdma_runtime.host.check.result import Machine, Result, failure, ok, warning

_OLDEST = (3, 17)
_INSTALL = "install CRIU (Debian: apt-get install criu)"
_UNEXAMINED = "not examined: CRIU is missing"
_NEEDS_ROOT = warning("not examined: criu check needs root", "run migrrdma check with sudo")


def version(machine: Machine) -> Result:
    """Presence and release."""
    done = machine.run(["criu", "--version"])
    if done is None:
        return failure("CRIU is not installed", _INSTALL)
    found = re.search(r"Version: (\d+)\.(\d+)\S*", done.stdout)
    if done.status != 0 or found is None:
        return failure(f"criu --version fails: {done.complaint}", "reinstall CRIU")
    number = found[0].removeprefix("Version: ")
    if (int(found[1]), int(found[2])) < _OLDEST:
        return failure(f"CRIU {number} is too old", f"install CRIU {_OLDEST[0]}.{_OLDEST[1]} or newer")
    return ok(f"CRIU {number}")


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
