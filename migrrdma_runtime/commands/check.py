"""``migrrdma check``: examine this host, say what is missing and how to mend it."""

from __future__ import annotations

import json
import os
from functools import cache

import typer

from migrrdma_runtime.commands.options import AS_JSON
from migrrdma_runtime.engine.docker import DockerDaemon
from migrrdma_runtime.host import machine
from migrrdma_runtime.host.check.result import Machine, Result, Status
from migrrdma_runtime.host.check.table import CHECKS, examine, is_healthy

HELP = """Examine this host: kernel, CRIU, Docker, RDMA, this installation.

One line each: ok, warning or failure, with the remedy. The exit code is 1 if there is a failure. As root it
sees more.

\b
Examples:
  sudo migrrdma check
  sudo migrrdma check --json | jq -r '.checks[] | select(.status != "ok") | .remedy'
"""

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "red"}
_WIDTH = max(len(name) for name in CHECKS)


def check(as_json: bool = AS_JSON) -> None:
    """Run the checks of ``host/check/table.py``."""
    examined = Machine(machine.Host(), machine.run, cache(DockerDaemon), os.geteuid() == 0)
    results: dict[str, Result] = {}
    for name, one in CHECKS.items():
        results[name] = examine(examined, one)
        if not as_json:
            _print(name, results[name])
    healthy = is_healthy(list(results.values()))
    if as_json:
        typer.echo(
            json.dumps({"ok": healthy, "checks": [_as_dict(*item) for item in results.items()]}, indent=2)
        )
    raise typer.Exit(0 if healthy else 1)


def _print(name: str, result: Result) -> None:
    status = typer.style(f"{result.status.value:8}", fg=_COLOURS[result.status])
    typer.echo(f"{status} {name:{_WIDTH}}  {result.detail}")
    if result.remedy:
        typer.echo(f"{'':8} {'':{_WIDTH}}  → {result.remedy}")


def _as_dict(name: str, result: Result) -> dict[str, str]:
    return {
        "name": name,
        "status": result.status.value,
        "detail": result.detail,
        "remedy": result.remedy,
    }
