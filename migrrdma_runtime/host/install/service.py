"""The agent as a service of systemd's, where systemd runs; where it does not, its files alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import PurePath

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import InstallError
from migrrdma_runtime.host.install.step import Step
from migrrdma_runtime.host.machine import Host, Runner

UNIT = PurePath(paths.AGENT_UNIT).name
ENABLED = f"{PurePath(paths.AGENT_UNIT).parent}/multi-user.target.wants/{UNIT}"
"""The link that ``systemctl enable`` makes."""


def plan_reload(host: Host, run: Runner, *, changed: bool) -> list[Step]:
    """Have systemd read the unit that was put there, now or by an install that was killed before this."""
    if not _runs(host) or not (changed or _shown(run, "NeedDaemonReload") == "yes"):
        return []
    return [_systemctl(run, "daemon-reload", "systemd reads the new unit")]


def plan_stop(host: Host, run: Runner) -> list[Step]:
    """Stop the agent and see that no boot starts it again; its unit is removed after this."""
    steps = []
    unit, link = host.path(paths.AGENT_UNIT), host.path(ENABLED)
    # A unit that has gone already leaves an agent that runs: `disable --now` would not know it.
    if _runs(host) and not unit.exists() and _shown(run, "ActiveState") in ("active", "activating"):
        steps.append(_systemctl(run, "stop", "stops the agent", UNIT))
    elif _runs(host) and unit.exists() and (link.is_symlink() or _shown(run, "ActiveState") != "inactive"):
        steps.append(_systemctl(run, "disable", "stops the agent", "--now", UNIT))
    if link.is_symlink():
        steps.append(Step(ENABLED, partial(link.unlink, missing_ok=True), "removal"))
    return steps


def plan_forget(host: Host, run: Runner) -> list[Step]:
    """Have systemd forget the unit that was removed, its failures too."""
    if not _runs(host) or not host.path(paths.AGENT_UNIT).exists():
        return []
    reload = _systemctl(run, "daemon-reload", "systemd forgets the unit")

    def apply() -> None:
        run(["systemctl", "reset-failed", UNIT])  # which fails for one that has not failed
        if reload.apply is not None:
            reload.apply()

    return [replace(reload, apply=apply)]


def _runs(host: Host) -> bool:
    """As sd_booted(3) has it."""
    return host.path("/run/systemd/system").is_dir()


def _shown(run: Runner, member: str) -> str:
    done = run(["systemctl", "show", "--value", "--property", member, UNIT])
    return done.stdout.strip() if done is not None and done.status == 0 else ""


def _systemctl(run: Runner, verb: str, note: str, *arguments: str) -> Step:
    command = ("systemctl", verb, *arguments)

    def apply() -> None:
        done = run(command)
        if done is not None and done.status != 0:
            raise InstallError(f"{' '.join(command)}: {done.complaint}")

    return Step(" ".join(command), apply, note)
