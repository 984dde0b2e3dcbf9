"""``migrrdma migration moves``: the containers that move from this host or to it."""

from __future__ import annotations

import json

import typer

from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands.options import AS_JSON, mover_here, require_root

HELP = """List the containers that `migrrdma migrate` moves from this host or to it, and those that it has moved.

\b
Examples:
  sudo migrrdma migration moves
  sudo migrrdma migration moves --json | jq '.departures[] | select(.state == "moved")'
"""


def moves(as_json: bool = AS_JSON) -> None:
    """Ask this host's mover."""
    require_root("migrrdma migration moves")
    with mover_here() as mover:
        found = mover.ask({"op": "list"})
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if not any(found.values()):
        typer.echo("no container has moved from this host, or to it")
    for one in found["departures"]:
        typer.echo(printable(f"{one['move']}  {one['container']} to {one['destination']}: {one['state']}"))
        if one["error"]:
            typer.echo(printable(f"{'':18}{one['error']}"))
    for one in found["arrivals"]:
        typer.echo(printable(f"{one['move']}  {one['container']} from {one['source']}: {one['state']}"))
        if one["error"]:
            typer.echo(printable(f"{'':18}{one['error']}"))
