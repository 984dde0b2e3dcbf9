"""The shell command ``lab/rack``."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .choice import choose_rack
from .errors import RackError
from .plan import NODES
from .rack import Rack

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=__doc__)

NodeName = Annotated[
    str, typer.Argument(metavar="NODE", help=f"One of {', '.join(node.name for node in NODES)}.")
]
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


@app.callback()
def choose(
    context: typer.Context,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="The rack of namespaces with a software RDMA device; RACK=fast does the same."
        ),
    ] = False,
    release: Annotated[
        str | None, typer.Option(envvar="RELEASE", help="The Debian release: trixie or bookworm.")
    ] = None,
) -> None:
    """Three hosts with real Docker, runc, CRIU and this working tree, to try and to prove things on."""
    context.obj = choose_rack(release, "fast" if fast else None)


def _rack(context: typer.Context) -> Rack:
    if os.geteuid() != 0:
        raise RackError("a rack's hosts, disks and networks are root's: run lab/rack as root")
    assert isinstance(context.obj, Rack)  # noqa: S101 - `choose` has put it there
    return context.obj


@app.command()
def up(
    context: typer.Context,
    nodes: Annotated[
        list[str] | None, typer.Argument(metavar="[NODE]...", help="Default: all three.")
    ] = None,
) -> None:
    """Bring the rack up: build what is not built, start what does not run. Root only.

    Example: lab/rack up
    """
    rack = _rack(context)
    rack.up([rack.node(name) for name in nodes] if nodes else NODES)


@app.command()
def status(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Say what every node is doing; exit code 1 unless all of them run."""
    nodes = _rack(context).status()
    if as_json:
        print(json.dumps([asdict(node) for node in nodes], indent=2))
    else:
        table = Table("node", "state", "management", "data", "project", box=None)
        for node in nodes:
            state = "down" if not node.running else "partitioned" if node.partitioned else "up"
            table.add_row(node.name, state, node.management_address, node.data_address, node.project)
        Console().print(table)
    if not all(node.running for node in nodes):
        raise typer.Exit(1)


@app.command(context_settings=_PASS_ON)
def ssh(context: typer.Context, name: NodeName) -> None:
    """Run a command on a node with its own exit code and streams; without one, a shell.

    One word is a shell script, several are a command and its arguments.

    Example: lab/rack ssh src -- docker ps -a
    """
    rack = _rack(context)
    shell = rack.shell(rack.node(name))
    words = context.args[1:] if context.args[:1] == ["--"] else context.args
    if len(words) == 1:
        words = ["sh", "-c", words[0]]
    command = shell.command(words, terminal=not words and sys.stdin.isatty())
    os.execvp(command[0], command)  # noqa: S606


@app.command()
def cp(context: typer.Context, source: str, destination: str) -> None:
    """Copy a file or folder to a node or back; the node's side is written NODE:PATH.

    Example: lab/rack cp dst:/var/log/syslog .
    """
    rack = _rack(context)
    sides = [side.partition(":") for side in (source, destination)]
    remote = [bool(colon) and "/" not in head for head, colon, _ in sides]
    if sum(remote) != 1:
        raise RackError("exactly one side of a copy is NODE:PATH; write ./a:b for a local name with a colon")
    node = rack.node(sides[remote.index(True)][0])
    there = []
    for whole, far, (_, _, tail) in zip((source, destination), remote, sides, strict=True):
        there.append(f":{tail}" if far else whole)
    rack.shell(node).copy(there[0], there[1])


@app.command()
def install(context: typer.Context) -> None:
    """Put this working tree's build on every node."""
    _rack(context).install()


@app.command()
def reset(context: typer.Context) -> None:
    """Put every node back to the snapshot taken after boot, with this working tree's build."""
    _rack(context).reset()


@app.command()
def down(context: typer.Context) -> None:
    """Stop the machines and remove their network; images and disks stay for a quick `up`."""
    _rack(context).down()


@app.command()
def logs(context: typer.Context, name: NodeName) -> None:
    """Print a node's journal, or its console if it does not answer."""
    rack = _rack(context)
    print(rack.logs(rack.node(name)), end="")


@app.command()
def partition(context: typer.Context, name: NodeName) -> None:
    """Cut a node off the data network, silently; `heal` undoes it."""
    rack = _rack(context)
    rack.partition(rack.node(name))


@app.command()
def heal(context: typer.Context, name: NodeName) -> None:
    """Undo `partition` and `netem`."""
    rack = _rack(context)
    rack.heal(rack.node(name))


@app.command(context_settings=_PASS_ON)
def netem(context: typer.Context, name: NodeName) -> None:
    """Disturb what a node sends on the data network; the arguments are tc-netem(8)'s.

    Example: lab/rack netem src delay 20ms loss 1%
    """
    rack = _rack(context)
    rack.netem(rack.node(name), context.args)


@app.command()
def power_off(context: typer.Context, name: NodeName) -> None:
    """Everything on a node ends at once, as by pulling the plug; `boot` starts it again."""
    rack = _rack(context)
    rack.power_off(rack.node(name))


@app.command()
def boot(
    context: typer.Context,
    name: NodeName,
    uptime: Annotated[
        int | None, typer.Option(help="Fast rack: seconds its clock is ahead of this machine's.")
    ] = None,
) -> None:
    """Start a node again after `power-off`, from its disk."""
    rack = _rack(context)
    rack.boot(rack.node(name), uptime)


@app.command()
def fill_disk(context: typer.Context, name: NodeName) -> None:
    """Let nothing more be written on a node (fast rack); `free-disk` undoes it."""
    rack = _rack(context)
    rack.fill_disk(rack.node(name))


@app.command()
def free_disk(context: typer.Context, name: NodeName) -> None:
    """Undo `fill-disk`."""
    rack = _rack(context)
    rack.free_disk(rack.node(name))


@app.command()
def freeze(context: typer.Context, name: NodeName) -> None:
    """Stop every process of a node where it is (fast rack); `thaw` undoes it, and the node's clocks jump."""
    rack = _rack(context)
    rack.freeze(rack.node(name))


@app.command()
def thaw(context: typer.Context, name: NodeName) -> None:
    """Undo `freeze`."""
    rack = _rack(context)
    rack.thaw(rack.node(name))


def _end(number: int, _frame: FrameType | None) -> None:
    """Whoever is killed or loses its terminal clears up as after Ctrl-C."""
    sys.exit(128 + number)


def main() -> None:
    """Run the command; a rack's error is one message, not a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _end)
    try:
        app(prog_name="lab/rack")
    except RackError as exc:
        print(f"rack: error: {exc}", file=sys.stderr)
        sys.exit(1)
