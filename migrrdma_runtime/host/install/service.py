"""The agent and the mover as services of systemd's, where systemd runs; where it does not, their files alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import PurePath

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import InstallError
from migrrdma_runtime.host.install.step import Step
from migrrdma_runtime.host.machine import Host, Runner

UNITS = (paths.MOVER_UNIT, paths.AGENT_UNIT)
"""In the order in which they are stopped: the mover asks the agent."""


def enabled(unit: str) -> str:
    """The link that ``systemctl enable`` makes."""
    file = PurePath(unit)
    return f"{file.parent}/multi-user.target.wants/{file.name}"


def plan_reload(host: Host, run: Runner, *, changed: bool) -> list[Step]:
    """Have systemd read the units that were put there, now or by an install that was killed before this."""
    if not _runs(host) or not (
        changed or any(_shown(run, "NeedDaemonReload", unit) == "yes" for unit in UNITS)
    ):
        return []
    return [_systemctl(run, "daemon-reload", "systemd reads the new units")]


def plan_stop(host: Host, run: Runner) -> list[Step]:
    """Stop them and see that no boot starts them again; their units are removed after this."""
    return [step for unit in UNITS for step in _plan_stop(host, run, unit)]


def _plan_stop(host: Host, run: Runner, file: str) -> list[Step]:
    steps = []
    name = PurePath(file).name
    unit, link = host.path(file), host.path(enabled(file))
    # A unit that has gone already leaves a service that runs: `disable --now` would not know it.
    if _runs(host) and not unit.exists() and _shown(run, "ActiveState", file) in ("active", "activating"):
        steps.append(_systemctl(run, "stop", f"stops {name}", name))
    elif (
        _runs(host)
        and unit.exists()
        and (link.is_symlink() or _shown(run, "ActiveState", file) != "inactive")
    ):
        steps.append(_systemctl(run, "disable", f"stops {name}", "--now", name))
    if link.is_symlink():
        steps.append(Step(enabled(file), partial(link.unlink, missing_ok=True), "removal"))
    return steps


def plan_forget(host: Host, run: Runner) -> list[Step]:
    """Have systemd forget the units that were removed, their failures too."""
    there = [unit for unit in UNITS if host.path(unit).exists()]
    if not _runs(host) or not there:
        return []
    reload = _systemctl(run, "daemon-reload", "systemd forgets the units")

    def apply() -> None:
        for unit in there:
            run(["systemctl", "reset-failed", PurePath(unit).name])  # which fails for one that has not failed
        if reload.apply is not None:
            reload.apply()

    return [replace(reload, apply=apply)]


def _runs(host: Host) -> bool:
    """As sd_booted(3) has it."""
    return host.path("/run/systemd/system").is_dir()


def _shown(run: Runner, member: str, unit: str) -> str:
    done = run(["systemctl", "show", "--value", "--property", member, PurePath(unit).name])
    return done.stdout.strip() if done is not None and done.status == 0 else ""


def _systemctl(run: Runner, verb: str, note: str, *arguments: str) -> Step:
    command = ("systemctl", verb, *arguments)

    def apply() -> None:
        done = run(command)
        if done is not None and done.status != 0:
            raise InstallError(f"{' '.join(command)}: {done.complaint}")

    return Step(" ".join(command), apply, note)
