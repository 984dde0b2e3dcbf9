"""``migrrdma report``: what a move of a container has cost, and where its time went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from migrrdma_runtime.base.errors import AgentError, UsageError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands import move_view, report_page
from migrrdma_runtime.commands.options import AS_JSON, mover_here, require_root

HELP = """Show what a move of a container from this host has cost, and draw where its time went.

With --html a page is written that needs nothing but a browser: the hosts on one time axis, how long the container
stood still, how long each partner noticed, and what was sent.

\b
Examples:
  sudo migrrdma report                            the last container that has moved from here
  sudo migrrdma report 7f3c9d --html move.html    one of `migrrdma migration moves`
  sudo migrrdma report --json | jq '.downtime'
"""

_MOVE = typer.Argument(
    "",
    metavar="[MOVE]",
    help="The move, or the beginning of its name. Default: the last.",
    show_default=False,
)
_HTML = typer.Option(
    "",
    "--html",
    metavar="FILE",
    help="Draw it as a page, in a file that is not there yet.",
    show_default=False,
)


def report(move: str = _MOVE, html: str = _HTML, as_json: bool = AS_JSON) -> None:
    """Ask this host's mover for the receipt."""
    require_root("migrrdma report")
    with mover_here() as mover:
        receipt = _choose(mover.ask({"op": "list"})["departures"], move)
    if html:
        _write(Path(html), report_page.page(receipt))
    if as_json:
        typer.echo(json.dumps(receipt, indent=2))
        return
    for line in move_view.receipt(receipt):
        typer.echo(printable(line))
    if html:
        typer.echo(printable(f"drawn in {html}"))


def _choose(departures: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    found = [one for one in departures if one["receipt"] and one["move"].startswith(wanted)]
    if not found:
        what = f"move {wanted}" if wanted else "container"
        raise AgentError(f"no {what} has moved from this host: `migrrdma migration moves` lists what has")
    if wanted and len(found) > 1:
        names = ", ".join(one["move"] for one in found)
        raise AgentError(f"{wanted} could be any of {names}: give more of it")
    receipt: dict[str, Any] = found[-1]["receipt"]
    return receipt


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already: name another file for --html") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
