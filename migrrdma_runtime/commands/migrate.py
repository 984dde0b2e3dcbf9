"""``migrrdma migrate``: move a running container to another host, live."""

from __future__ import annotations

import json
import signal
import sys
from types import FrameType
from typing import Any

import typer

from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands import move_view
from migrrdma_runtime.commands.move_view import View
from migrrdma_runtime.commands.options import AS_JSON, ENGINE, mover_here, require_root
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
  sudo migrrdma migrate db node7 --max-downtime 1s  send memory ahead until the rest fits into a second
  sudo migrrdma migrate db node7 --with-volumes    and the volumes that node7 has not got
  sudo migrrdma migrate web node7 --from node4     asked for here, and done by node4
  sudo migrrdma migrate web node7 --json           one event to a line, the receipt last
"""

_CONTAINER = typer.Argument(..., metavar="CONTAINER", help="By its name or the beginning of its id.")
_DEST = typer.Argument(..., metavar="DEST", help="The host it is to move to.")
_DRY = typer.Option(False, "--dry-run", help="Say what would hinder the move, and change nothing.")
_KEEP = typer.Option(False, "--keep-source", help="Keep the container here, stopped and renamed.")
BANDWIDTH = typer.Option(
    0,
    "--bandwidth",
    metavar="MIB/S",
    min=0,
    help="Send no more than so many MiB a second. Default: no limit.",
)
WITH_VOLUMES = typer.Option(
    False,
    "--with-volumes",
    help="Take volumes and folders along that it mounts and the other host has not got.",
)
ROUNDS = typer.Option(
    -1,
    "--rounds",
    metavar="N",
    min=-1,
    max=64,
    show_default=False,
    help="Send memory ahead in at most N rounds while the container runs; 0: all of it when it is stopped. "
    "Default: as many as pay.",
)
MAX_DOWNTIME = typer.Option(
    "300ms",
    "--max-downtime",
    metavar="TIME",
    help="Send memory ahead until the container is expected to stand still for no longer: 300ms, 2s.",
)
TIMEOUT = typer.Option(
    "0s",
    "--timeout",
    metavar="TIME",
    show_default=False,
    help="Undo the move if one of its steps takes longer: 90s. Default: as long as something moves.",
)
FROM = typer.Option(
    "",
    "--from",
    metavar="HOST",
    show_default=False,
    help="The host on which CONTAINER is, with :PORT if need be. Default: this one.",
)
TCP = typer.Option(
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
    tcp: str = TCP,
    bandwidth: int = BANDWIDTH,
    with_volumes: bool = WITH_VOLUMES,
    rounds: int = ROUNDS,
    max_downtime: str = MAX_DOWNTIME,
    timeout: str = TIMEOUT,
    source: str = FROM,
    engine: str = ENGINE,
    as_json: bool = AS_JSON,
) -> None:
    """Have this host's mover do it, and show what it says."""
    require_root("migrrdma migrate")
    require_tcp(tcp)
    move = {
        "container": container,
        "engine": engine,
        "destination": dest,
        "dry_run": dry_run,
        "keep_source": keep_source,
        "bandwidth": bandwidth << 20,
        "tcp": tcp,
        "with_volumes": with_volumes,
        "rounds": rounds,
        "max_downtime": seconds_of(max_downtime, "--max-downtime"),
        "timeout": seconds_of(timeout, "--timeout"),
    }
    request = {"op": "migrate", "source": source, "move": move}
    with mover_here() as mover, move_view.choose(as_json=as_json) as view:
        result = watched(mover, request, view)
    if dry_run:
        _show_obstacles(result["obstacles"], container, dest, as_json=as_json)
    else:
        view.done(result)


def require_tcp(tcp: str) -> None:
    """Whether --tcp says what it may."""
    if tcp not in ("refuse", "keep"):
        raise typer.BadParameter(f"{tcp!r} is neither refuse nor keep", param_hint="--tcp")


def seconds_of(text: str, option: str) -> float:
    """A time as these options take it."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("", 1.0)):
        number = text.removesuffix(unit)
        if text.endswith(unit) and number.replace(".", "", 1).isdecimal():
            return min(float(number) * factor, 86400.0)
    raise typer.BadParameter(f"{text!r} is no time: try 300ms or 2s", param_hint=option)


def watched(mover: Mover, request: dict[str, Any], view: View) -> dict[str, Any]:
    """Have a mover do it, and show what it says, to the end; Ctrl-C has it undone."""
    move, unwanted = "", False

    def cancel() -> None:
        with mover_here() as another:  # on this connection comes the end of the move
            another.say({"op": "cancel", "move": move})

    def undo(_number: int, _frame: FrameType | None) -> None:
        print("undoing the move …", file=sys.stderr, flush=True)
        nonlocal unwanted
        unwanted = True
        if move:
            cancel()

    former = {one: signal.signal(one, undo) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for answer in mover.watch(request):
            if "done" in answer:
                result: dict[str, Any] = answer["done"]
                return result
            had_name, move = bool(move), answer["event"].get("move", move)
            if unwanted and move and not had_name:
                cancel()  # it had none yet when that was asked for
            view.show(answer["event"])
        raise AssertionError("watch() ends with an answer")
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


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
