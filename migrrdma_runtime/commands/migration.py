"""``migrrdma migration``: the ways out of a migration that a person can take."""

from __future__ import annotations

import json

import typer

from migrrdma_runtime.base import config
from migrrdma_runtime.commands.options import AS_JSON, require_root
from migrrdma_runtime.wire import runtime_client

GROUP_HELP = "Migrations that wait for somebody: `migrrdma status` lists them."

ABANDON_HELP = """Give up a checkpoint that was made on this host and waits for its restore.

The application in it is lost: it can be restored nowhere any more, also not from a copy. Its partners go on with the
connections they had, on which their devices report errors. The container may be started afresh on this host.

\b
Examples:
  migrrdma status
  migrrdma migration abandon 0123456789abcdef
"""

_MIGRATION = typer.Argument(..., metavar="MIGRATION", help="Its name, as `migrrdma status` shows it.")
_LOST = typer.Option(
    False, "--lost", help="It has been restored on a host that is lost for good, with the application."
)


def abandon(migration: str = _MIGRATION, lost: bool = _LOST, as_json: bool = AS_JSON) -> None:
    """Have this host's agent give it up."""
    require_root("migrrdma migration abandon")
    shared, broken = config.load()
    if broken:
        raise broken
    with runtime_client.connect(shared.run_dir) as agent:
        agent.abandon(migration, lost=lost)
    document = json.dumps({"migration": migration, "abandoned": True})
    typer.echo(document if as_json else f"migration {migration} is given up")
