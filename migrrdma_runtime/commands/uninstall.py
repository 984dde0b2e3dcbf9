"""``migrrdma uninstall``: take away what ``migrrdma install`` put on this host."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import DockerError, EngineError, StoreError
from migrrdma_runtime.commands.options import AS_JSON, DRY_RUN, require_root
from migrrdma_runtime.commands.steps import Report
from migrrdma_runtime.engine.docker import Docker, DockerDaemon
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.podman import Podman
from migrrdma_runtime.host import machine
from migrrdma_runtime.host.install import uninstall as uninstalling
from migrrdma_runtime.host.install import users
from migrrdma_runtime.host.install.docker_config import DEFAULT, DockerConfig
from migrrdma_runtime.host.install.step import locked, perform

HELP = """Remove what "migrrdma install" put on this host.

Refused while containers run under the runtime, because nobody could stop them without it, and while a
migration is under way. The agent is stopped. A changed configuration file, the host's certificate, the agent's
records and the guest libraries (checkpoints may need both) stay, unless --purge is given; a cluster's
certificate authority stays in any case.

\b
Examples:
  migrrdma uninstall --dry-run
  migrrdma uninstall && systemctl restart docker
  migrrdma uninstall --purge    leave nothing behind
"""

_DOCKER_CONFIG = typer.Option(
    "", "--docker-config", metavar="PATH", help="Docker's daemon.json; the one install edited, if not given."
)
_PURGE = typer.Option(False, "--purge", help="Also remove what is kept otherwise, except for an authority.")
_FORCE = typer.Option(False, "--force", help="Go on although containers run, or migrate.")


def uninstall(
    dry_run: bool = DRY_RUN,
    purge: bool = _PURGE,
    force: bool = _FORCE,
    docker_config: str = _DOCKER_CONFIG,
    as_json: bool = AS_JSON,
) -> None:
    """Carry out the plan of ``host/install/uninstall.py``."""
    host = machine.Host()
    report = Report(as_json=as_json, dry_run=dry_run)
    docker, podmans = _docker(), _podmans()

    def docker_file() -> DockerConfig:
        name = docker_config or uninstalling.docker_config_name(host) or DEFAULT
        return DockerConfig(host, machine.run, str(Path(name).absolute()))

    if dry_run:
        report.show(uninstalling.plan(host, docker_file(), purge=purge))
    else:
        require_root("migrrdma uninstall")
        with locked(host.path(paths.RUN_DIR)):
            busy, waiting = _migrations(host)
            if not force:
                users.require_no_container_runs(host, docker, podmans)
                users.require_no_migration(busy)
            steps = uninstalling.plan(host, docker_file(), purge=purge)
            report.show(perform(steps))
        if any(step.apply for step in steps):
            # dockerd keeps the runtimes it knows when a reload finds no "runtimes" key at all.
            report.note("Next: systemctl restart docker (a reload does not make Docker forget a runtime)")
        if waiting:
            report.note(
                "Checkpoints that wait for a restore or a decision, which takes an agent here: "
                + ", ".join(waiting)
            )
    if orphans := users.stopped(docker, podmans):
        report.note(f"Stopped containers that will not start without the runtime: {', '.join(orphans)}")
    report.finish()


def _docker() -> Docker | None:
    try:
        return DockerDaemon()
    except DockerError:  # not running, or not there any more: then there is nobody to warn
        return None


def _podmans() -> list[Container]:
    """Podman's containers that were made for our runtime: Podman can neither stop nor remove them without it."""
    podman = Podman()
    try:
        return [one for one in podman.containers() if podman.adopts(one)]
    except EngineError as error:
        if not str(error).endswith("is not installed"):
            print(
                f"migrrdma: warning: whether containers need the runtime is unknown: {error}", file=sys.stderr
            )
        return []


def _migrations(host: machine.Host) -> tuple[list[str], list[str]]:
    try:
        return users.migrations(host)
    except (StoreError, ValueError) as error:  # a state or a configuration that no agent could use either
        print(f"migrrdma: warning: whether migrations are under way is unknown: {error}", file=sys.stderr)
        return [], []
