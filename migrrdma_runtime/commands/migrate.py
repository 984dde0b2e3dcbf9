"""``migrrdma migrate``: move a running container to another host, live."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from migrrdma_runtime.base import config
from migrrdma_runtime.base.errors import RefusedError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands.options import AS_JSON, ENGINE, require_root
from migrrdma_runtime.wire.mover_client import Mover

HELP = """Move a running container to another host, live, with its RDMA connections.

The same container is made on DEST (image, configuration, networks, labels, files), started there by its own engine,
and goes on where it stood here. Until it is committed there, whatever fails is undone: the container here goes on,
which costs a pause. After that the one here is removed, or kept stopped and renamed with --keep-source.

DEST is a host on which migrrdma is installed: a name or an address, with :PORT if its mover_port is another one.
Ctrl-C undoes the move as long as it is not committed.

\b
Examples:
  sudo migrrdma migrate web node7
  sudo migrrdma migrate web node7 --dry-run        what would hinder it, on every host, with its remedy
  sudo migrrdma migrate web 192.0.2.7 --tcp keep   take established TCP connections along
  sudo migrrdma migrate web node7 --json           one event to a line, the receipt last
"""

_MOVE = typer.Argument(..., metavar="MOVE", help="As `migrrdma migration moves` shows it.")
_CONTAINER = typer.Argument(..., metavar="CONTAINER", help="By its name or the beginning of its id.")
_DEST = typer.Argument(..., metavar="DEST", help="The host it is to move to.")
_DRY = typer.Option(False, "--dry-run", help="Say what would hinder the move, and change nothing.")
_KEEP = typer.Option(False, "--keep-source", help="Keep the container here, stopped and renamed.")
_TCP = typer.Option(
    "refuse",
    "--tcp",
    metavar="refuse|keep",
    help="Established TCP connections: refuse to move, or take them along.",
)


def migrate(
    container: str = _CONTAINER,
    dest: str = _DEST,
    dry_run: bool = _DRY,
    keep_source: bool = _KEEP,
    tcp: str = _TCP,
    engine: str = ENGINE,
    as_json: bool = AS_JSON,
) -> None:
    """Have this host's mover do it, and show what it says."""
    require_root("migrrdma migrate")
    if tcp not in ("refuse", "keep"):
        raise typer.BadParameter(f"{tcp!r} is neither refuse nor keep", param_hint="--tcp")
    shared, broken = config.load()
    if broken:
        raise broken
    request = {
        "op": "migrate",
        "container": container,
        "engine": engine,
        "destination": dest,
        "dry_run": dry_run,
        "keep_source": keep_source,
        "tcp": tcp,
    }
    with Mover(shared.run_dir) as mover:
        view = _Lines(as_json=as_json)
        with _cancelled_by_signals(view):
            for answer in mover.watch(request):
                if "event" in answer:
                    view.show(answer["event"])
                else:
                    result = answer["done"]
    if dry_run:
        _show_obstacles(result["obstacles"], container, dest, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps({"receipt": result}))
    else:
        for line in receipt(result):
            typer.echo(printable(line))


def cancel(move: str = _MOVE, as_json: bool = AS_JSON) -> None:
    """Have this host's mover undo a move that is under way."""
    require_root("migrrdma migration cancel")
    with _mover() as mover:
        if not mover.ask({"op": "cancel", "move": move})["cancelled"]:
            raise RefusedError(f"no move {move} from this host is under way, or it is too late to undo it")
    typer.echo(json.dumps({"move": move, "cancelled": True}) if as_json else f"move {move} is being undone")


CANCEL_HELP = """Undo a move from this host that is under way: its container goes on here.

\b
Examples:
  sudo migrrdma migration moves
  sudo migrrdma migration cancel 0123456789abcdef
"""

MOVES_HELP = """List the containers that `migrrdma migrate` moves from this host or to it, and those that it has moved.

\b
Examples:
  sudo migrrdma migration moves
  sudo migrrdma migration moves --json | jq '.departures[] | select(.state == "moved")'
"""


def moves(as_json: bool = AS_JSON) -> None:
    """Ask this host's mover."""
    require_root("migrrdma migration moves")
    with _mover() as mover:
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


def receipt(found: dict[str, Any]) -> Iterator[str]:
    """What a move has cost, in one screen."""
    yield (
        f"{found['container']} has moved from {found['source']} to {found['destination']} (move {found['move']})"
    )
    for step in found["steps"]:
        yield _figure(step["name"], f"{step['seconds']:.3f} s")
    for what, count in found["bytes"].items():
        yield _figure(f"{what} sent", f"{count / (1 << 20):.1f} MiB")
    for host, seconds in found.get("blackouts", {}).items():
        yield _figure(f"blackout at {host}", f"{seconds:.3f} s")
    for lost in found.get("lost", []):
        yield f"  lost: {lost}"


def _figure(name: str, value: str) -> str:
    return f"  {name:<28} {value:>12}"


def _mover() -> Mover:
    shared, broken = config.load()
    if broken:
        raise broken
    return Mover(shared.run_dir)


def _show_obstacles(found: list[dict[str, str]], container: str, dest: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"obstacles": found}, indent=2))
    elif not found:
        typer.echo(f"nothing hinders {container} from moving to {dest}")
    for one in [] if as_json else found:
        typer.echo(printable(f"{one['what']}"))
        typer.echo(printable(f"    {one['remedy']}"))
    if found:
        raise typer.Exit(1)


class _Lines:
    """What is told of a move, line by line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._bytes = 0
        self.move = ""

    def show(self, event: dict[str, Any]) -> None:
        """Print an event, if it is worth a line."""
        self.move = event.get("move", self.move)
        if self._as_json:
            typer.echo(json.dumps(event))
        elif event.get("state") == "begun":
            typer.echo(printable(f"{event['step']} …"))
        elif "undone" in event:
            typer.echo(printable(f"undone: {event['undone']}"), err=True)
        elif "waiting" in event:
            typer.echo(printable(event["waiting"]), err=True)


@contextmanager
def _cancelled_by_signals(view: _Lines) -> Iterator[None]:
    """Have Ctrl-C undo the move, and wait for its end."""

    def undo(_number: int, _frame: FrameType | None) -> None:
        print("undoing the move …", file=sys.stderr, flush=True)
        if view.move:
            with _mover() as mover:  # on the other connection comes the end of the move
                mover.say({"op": "cancel", "move": view.move})

    former = {one: signal.signal(one, undo) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
