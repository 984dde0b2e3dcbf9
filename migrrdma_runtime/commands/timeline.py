"""``migrrdma timeline``: where the time of a migration went."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer

from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands.options import AS_JSON
from migrrdma_runtime.commands.status import ask

HELP = """Show how long each step of a migration took, and how long the application noticed.

Blackout is how long a partner's sends waited, as that partner saw it; downtime is how long the process did not
run. Ask the host that restored the container: it knows all the steps, the source only its own.

\b
Examples:
  sudo migrrdma timeline                  the last migration that this host took part in
  sudo migrrdma timeline 7f3c9d…          one of those that `migrrdma status` lists
  sudo migrrdma timeline --json | jq '.blackout'
"""

# Not "str | None": the typer of Debian 12 (0.7) does not know such types.
_MIGRATION = typer.Argument(
    "", help="The migration, or the beginning of its name. Default: the last one.", show_default=False
)
_BAR = 32


def timeline(migration: str = _MIGRATION, as_json: bool = AS_JSON) -> None:
    """Ask the agent and print the steps in the order in which they began."""
    found = _choose(ask("migrrdma timeline")["migrations"], migration)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in _lines(found):
        typer.echo(printable(line))


def _choose(migrations: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    timed = [one for one in migrations if one.get("timeline")]
    chosen = [one for one in timed if one["migration"].startswith(wanted)]
    names = {one["migration"] for one in chosen}
    if wanted and len(names) > 1:
        raise AgentError(f"{wanted} could be any of {', '.join(sorted(names))}: give more of it")
    if not chosen:
        what = f"migration {wanted}" if wanted else "migration"
        raise AgentError(
            f"this host's agent knows no timeline of a {what}: migrrdma status lists what it knows"
        )
    last = max(chosen, key=lambda one: (float(one["updated"]), len(one["timeline"])))
    steps = sorted(last["timeline"], key=lambda step: float(step["start"]))
    return {
        "migration": last["migration"],
        "container": last.get("container", ""),
        "timeline": steps,
        "blackout": last.get("blackouts", {}),
        "downtime": last.get("downtime"),
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    steps = found["timeline"]
    begin = steps[0]["start"]
    length = max(step["start"] + step["seconds"] for step in steps) - begin
    yield f"migration {found['migration']}, container {found['container']:.12}"
    for step in steps:
        at = step["start"] - begin
        left = min(int(at / length * _BAR), _BAR - 1) if length else 0
        width = max(1, round(step["seconds"] / length * _BAR)) if length else 1
        bar = ("·" * left + "█" * width)[:_BAR].ljust(_BAR, "·")
        yield f"  {step['host']:<12.12} {step['name']:<10.10} {at:8.3f} s {step['seconds']:8.3f} s  {bar}"
    for partner, seconds in found["blackout"].items():
        yield f"  blackout, as {partner} saw it {seconds:8.3f} s"
    if found["downtime"] is not None:
        yield f"  downtime of the process {found['downtime']:8.3f} s"
