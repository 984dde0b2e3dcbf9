"""``migrrdma migration``: what waits for whom, and the ways out that a person can take."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import typer

from migrrdma_runtime.base import config
from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands.options import AS_JSON, require_root
from migrrdma_runtime.commands.status import ago, ask
from migrrdma_runtime.wire import runtime_client

GROUP_HELP = "Migrations that this host takes part in: what they wait for, and the way out."

LIST_HELP = """List the migrations of this host that wait for somebody, and for whom.

\b
Examples:
  sudo migrrdma migration list
  sudo migrrdma migration list --all        those that have ended as well; they are kept for a week
  sudo migrrdma migration list --json | jq -r '.[] | select(.state == "parked") | .migration'
"""

SHOW_HELP = """Show a migration, in each role that this host has in it: state, peers, reason, timeline, and the way out.

\b
Examples:
  sudo migrrdma migration show 0123456789abcdef
  sudo migrrdma migration show 0123          the beginning of its name is enough
  sudo migrrdma migration show 0123 --json | jq -r '.[].way_out'
"""

ABANDON_HELP = """Give up what waits on this host.

On the host where a checkpoint was made: the application in it is lost. It can be restored nowhere any more, also not
from a copy. Its partners go on with the connections they had, on which their devices report errors. The container may
be started afresh.

On a host that restores it: the restore is given up, and the checkpoint can be restored again.

On a partner's host: the wait is given up, and with it the connections to the container.

\b
Examples:
  sudo migrrdma migration list
  sudo migrrdma migration abandon 0123456789abcdef
  sudo migrrdma migration abandon --lost 0123456789abcdef
"""

_WIDTH = 100
_LABEL = 12
_TIE = "\xa0"
"""A space at which no line is broken; it is in no text that is made printable."""

_BEGINNING = typer.Argument(
    ..., metavar="MIGRATION", help="Its name, or the beginning of it, as `migrrdma migration list` shows it."
)
_ALL = typer.Option(False, "--all", "-a", help="Those that have ended as well.")
_MIGRATION = typer.Argument(..., metavar="MIGRATION", help="Its name, as `migrrdma migration list` shows it.")
_LOST = typer.Option(
    False,
    "--lost",
    help="Also what waits for a host that is lost for good: of the checkpoint's own host, where it was restored on the "
    "lost one, with the application; of the restoring host, where a partner or the source is lost.",
)


class AnyRole(StrEnum):
    """What a host can be to a migration."""

    SOURCE = "source"
    DESTINATION = "destination"
    PARTNER = "partner"


# Not "AnyRole | None": the typer of Debian 12 (0.7) does not know such types.
_ROLE = typer.Option(
    None,
    "--role",
    help="Which of this host's roles, if it has several. Default: the first of these that waits.",
)


def list_(every: bool = _ALL, as_json: bool = AS_JSON) -> None:
    """Ask the agent and print one line, or two, for each."""
    found = [one for one in ask("migrrdma migration list")["migrations"] if every or not one["settled"]]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if not found:
        typer.echo(
            "no migration waits on this host" if not every else "this host has taken part in no migration"
        )
    for one in found:
        container = f"  container {one['container']:.12}" if one.get("container") else ""
        state = f"{one['state']:<10} {ago(one['updated']):>7}"
        typer.echo(printable(f"{one['migration']}  {one['role']:<11}  {state}{container}"))
        for whom in one["waits_for"]:
            typer.echo(printable(f"{'':18}waits for {whom}"))


def show(migration: str = _BEGINNING, as_json: bool = AS_JSON) -> None:
    """Ask the agent and print everything it says of one."""
    found = _chosen(ask("migrrdma migration show")["migrations"], migration)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        for line in _lines(one):
            typer.echo(line)


def abandon(
    migration: str = _MIGRATION, lost: bool = _LOST, role: AnyRole = _ROLE, as_json: bool = AS_JSON
) -> None:
    """Have this host's agent give it up."""
    require_root("migrrdma migration abandon")
    shared, broken = config.load()
    if broken:
        raise broken
    with runtime_client.connect(shared.run_dir) as agent:
        given_up = agent.abandon(migration, lost=lost, role=role.value if role else "")
    document = json.dumps({"migration": migration, "role": given_up, "abandoned": True})
    typer.echo(document if as_json else f"migration {migration} is given up, as {given_up}")


def _chosen(migrations: list[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    found = [one for one in migrations if one["migration"].startswith(wanted)]
    names = sorted({one["migration"] for one in found})
    if not names:
        raise AgentError(f"this host's agent knows no migration {wanted}: see migrrdma migration list --all")
    if len(names) > 1:
        raise AgentError(f"{wanted} could be any of {', '.join(names)}: give more of it")
    return found


def _lines(one: dict[str, Any]) -> Iterator[str]:
    yield f"migration {one['migration']} as {one['role']}: {one['meaning']}"
    yield from _field("state", f"{one['state']} for {ago(one['updated'])}; begun {ago(one['created'])} ago")
    if one.get("container"):
        yield from _field("container", one["container"])
    for peer in one["peers"]:
        switched = {True: ", has switched over", False: ", has not switched over yet"}.get(
            peer.get("switched"), ""
        )
        yield from _field(peer["role"], f"{peer['name']} at {peer['address']}{switched}")
    if one.get("reason"):
        yield from _field("reason", one["reason"])
    for lost in one.get("lost", []):
        yield from _field("lost", lost if isinstance(lost, str) else json.dumps(lost))
    for step in one.get("timeline", []):
        yield from _field("step", f"{step['name']} on {step['host']}: {step['seconds']:.3f} s")
    for whom in one["waits_for"]:
        yield from _field("waits for", whom)
    if one["way_out"]:
        yield from _field("way out", one["way_out"])


def _field(label: str, text: str) -> Iterator[str]:
    """A label and a text beside it, which may take several lines; commands that are to be copied stay in one."""
    first = f"  {label:<{_LABEL}}"
    whole = re.sub(r"migrrdma [^;:,]*[0-9a-f]{16}", lambda one: one[0].replace(" ", _TIE), printable(text))
    lines = textwrap.wrap(
        whole,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield from (line.replace(_TIE, " ") for line in lines)
