"""``migrrdma migration cancel``: undo a move that is under way."""

from __future__ import annotations

import json

import typer

from migrrdma_runtime.base.errors import RefusedError
from migrrdma_runtime.commands.options import AS_JSON, mover_here, require_root

HELP = """Undo a move from this host that is under way: its container goes on here.

\b
Examples:
  sudo migrrdma migration moves
  sudo migrrdma migration cancel 0123456789abcdef
"""

_MOVE = typer.Argument(..., metavar="MOVE", help="As `migrrdma migration moves` shows it.")


def cancel(move: str = _MOVE, as_json: bool = AS_JSON) -> None:
    """Have this host's mover undo a move that is under way."""
    require_root("migrrdma migration cancel")
    with mover_here() as mover:
        if not mover.ask({"op": "cancel", "move": move})["cancelled"]:
            raise RefusedError(f"no move {move} from this host is under way, or it is too late to undo it")
    typer.echo(json.dumps({"move": move, "cancelled": True}) if as_json else f"move {move} is being undone")
