"""``migrrdma checkpoint discard``: have a container begin anew that was to go on from a checkpoint."""

from __future__ import annotations

import json

import typer

from migrrdma_runtime.base.errors import CheckpointDirError
from migrrdma_runtime.commands.checkpoint_import import staged_dir
from migrrdma_runtime.commands.options import AS_JSON, ENGINE, require_root
from migrrdma_runtime.criu import staging
from migrrdma_runtime.engine.find import find

HELP = """Have a container begin anew that would go on from a checkpoint at its next start.

Takes back what "migrrdma checkpoint import" has said about it. A checkpoint in Docker's folder stays there, for "docker
start --checkpoint", until "docker checkpoint rm"; the copy that was made for Podman is removed.

\b
Examples:
  sudo migrrdma checkpoint discard web
"""

_CONTAINER = typer.Argument(..., metavar="CONTAINER", help="Name or id of a container.")


def checkpoint_discard(container: str = _CONTAINER, engine: str = ENGINE, as_json: bool = AS_JSON) -> None:
    """Take the mark away, or say that there is none."""
    require_root("migrrdma checkpoint discard")
    _, found = find(container, engine)
    folder = staged_dir()
    checkpoint = staging.staged(folder, found.id)
    if not staging.discard(folder, found.id):
        raise CheckpointDirError(f"nothing is staged for container {found.name}: its next start begins anew")
    if as_json:
        said = {"container": found.name, "id": found.id, "path": str(checkpoint or ""), "discarded": True}
        typer.echo(json.dumps(said))
        return
    typer.echo(f"the next start of {found.name} begins anew")
