"""Options that several subcommands have, and rules that several obey."""

from __future__ import annotations

import os

import typer

from migrrdma_runtime.base import config
from migrrdma_runtime.base.errors import InstallError
from migrrdma_runtime.wire.mover_client import Mover

AS_JSON = typer.Option(False, "--json", help="Print one JSON document, for programs.")
DRY_RUN = typer.Option(False, "--dry-run", help="Show what would be done, change nothing.")
ENGINE = typer.Option(
    "", "--engine", metavar="NAME", help="docker or podman; by default the one that has it."
)
TRUST = typer.Option(
    "", "--trust", metavar="USER", help="Take what is this user's as well as root's: a name or a number."
)


def mover_here() -> Mover:
    """A connection to the mover of this host."""
    shared, broken = config.load()
    if broken:
        raise broken
    return Mover(shared.run_dir)


def require_root(command: str) -> None:
    """Say so at once instead of failing at the third file."""
    if os.geteuid() != 0:
        raise InstallError(f"{command} changes the host and needs root: run it with sudo")
