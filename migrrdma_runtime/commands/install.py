"""``migrrdma install``: put the runtime on this host and tell Docker about it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

import migrrdma_runtime
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import UsageError
from migrrdma_runtime.commands.options import AS_JSON, DRY_RUN, require_root
from migrrdma_runtime.commands.steps import Report
from migrrdma_runtime.host import machine
from migrrdma_runtime.host.install import bytecode, payload
from migrrdma_runtime.host.install import install as installing
from migrrdma_runtime.host.install.docker_config import DEFAULT, DockerConfig
from migrrdma_runtime.host.install.step import Step, locked, perform

HELP = """Put the runtime on this host and register it with Docker, or with Podman.

Does only what is not done yet, so it also repairs and upgrades. Docker's daemon.json keeps everything else it
holds, to the byte. Docker itself is neither restarted nor switched to experimental mode: "migrrdma check"
says what is left to do.

With --engine podman, root's Podman gets a hook that puts the guest library into every container that is given an
RDMA device, whichever runtime Podman runs it with, and knows our runtime by its name. Podman needs no restart.
Engines that were told once stay told.

\b
Examples:
  migrrdma install --dry-run    show the steps and daemon.json's diff
  migrrdma install && systemctl reload docker
  migrrdma install --engine podman                     Podman alone
  migrrdma install --engine docker --engine podman     both
  migrrdma install --docker-config /opt/docker/daemon.json
"""

_DOCKER_CONFIG = typer.Option(DEFAULT, "--docker-config", metavar="PATH", help="Docker's daemon.json.")

_ENGINES = typer.Option(
    [], "--engine", metavar="NAME", help="docker or podman; may be given twice. By default docker."
)


def install(
    dry_run: bool = DRY_RUN,
    docker_config: str = _DOCKER_CONFIG,
    engines: list[str] = _ENGINES,
    as_json: bool = AS_JSON,
) -> None:
    """Carry out the plan of ``host/install/install.py``."""
    if unknown := [one for one in engines if one not in installing.ENGINES]:
        raise UsageError(
            f"there is no engine {unknown[0]!r}: --engine takes {' or '.join(installing.ENGINES)}"
        )
    host = machine.Host()
    report = Report(as_json=as_json, dry_run=dry_run)

    daemon_json = str(Path(docker_config).absolute())

    def plan() -> list[Step]:
        docker = DockerConfig(host, machine.run, daemon_json)
        return [
            *bytecode.plan(Path(migrrdma_runtime.__file__).parent),
            *installing.plan(host, payload.load(sys.executable), docker, engines),
        ]

    if dry_run:
        report.show(plan())
    else:
        require_root("migrrdma install")
        os.umask(0o022)  # root's may be stricter, but what is installed is for everybody to read
        with locked(host.path(paths.RUN_DIR)):
            steps = plan()
            report.show(perform(steps))
        if any(step.apply for step in steps):
            tells_docker = any(step.what == daemon_json for step in steps)
            report.note(f"Next: {'systemctl reload docker, then ' * tells_docker}migrrdma check")
    report.finish()
