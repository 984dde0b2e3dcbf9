"""``migrrdma evacuate``: move every container off a host."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import typer

from migrrdma_runtime.base.errors import EngineError, MigrRDMAError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands.migrate import (
    BANDWIDTH,
    MAX_DOWNTIME,
    ROUNDS,
    TCP,
    TIMEOUT,
    WITH_VOLUMES,
    require_tcp,
    seconds_of,
)
from migrrdma_runtime.commands.options import AS_JSON, DRY_RUN, ENGINE, mover_here, require_root
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.find import ENGINES, by_name

HELP = """Move every running container of this host to another one, live, one after the other or several at once.

Those that were started with --runtime=migrrdma move, each as by migrrdma migrate; what was not is named, and stays.
Containers that are connected to each other wait for each other. One that cannot be moved goes on here, and the others
are moved all the same: the exit code is 1 then. Ctrl-C undoes what is under way and begins nothing more; the same
command goes on with what is left.

\b
Examples:
  sudo migrrdma evacuate node7
  sudo migrrdma evacuate node7 --dry-run                what would hinder each of them
  sudo migrrdma evacuate node7 --parallel 4 --bandwidth 500
  sudo migrrdma evacuate node7 --json | jq -r 'select(.moved == false) | .container'
"""

_DEST = typer.Argument(..., metavar="DEST", help="The host they are to move to.")
_PARALLEL = typer.Option(1, "--parallel", metavar="N", min=1, max=64, help="How many move at the same time.")


@dataclass
class _Evacuation:
    """The moves of one call."""

    options: dict[str, Any]
    """Of each move."""
    as_json: bool
    stopped: threading.Event = field(default_factory=threading.Event)
    under_way: set[str] = field(default_factory=set)
    _screen: threading.Lock = field(default_factory=threading.Lock)

    def move(self, engine: str, container: Container) -> bool:
        """Move one; whether it has moved."""
        if self.stopped.is_set():
            return self._say(container, moved=False, why="not begun: the evacuation was stopped")
        wanted = {**self.options, "engine": engine, "container": container.id}
        request = {"op": "migrate", "source": "", "move": wanted}
        move = ""
        try:
            with mover_here() as mover:
                for answer in mover.watch(request):
                    if "done" in answer:
                        return self._end(container, answer["done"])
                    move = answer["event"].get("move", move)
                    self.under_way.add(move)
        except MigrRDMAError as error:
            return self._say(container, moved=False, why=str(error))
        finally:
            self.under_way.discard(move)
        raise AssertionError("watch() ends with an answer")

    def stop(self) -> None:
        """Undo what is under way, and begin nothing more."""
        self.stopped.set()
        for move in set(self.under_way) - {""}:
            with mover_here() as mover:
                mover.say({"op": "cancel", "move": move})

    def _end(self, container: Container, result: dict[str, Any]) -> bool:
        if not self.options["dry_run"]:
            return self._say(container, moved=True, why="", receipt=result)
        found = result["obstacles"]
        why = "; ".join(f"{one['what']} ({one['remedy']})" for one in found)
        self._say(container, moved=False, why=why or "nothing hinders it")
        return not found

    def _say(
        self, container: Container, *, moved: bool, why: str, receipt: dict[str, Any] | None = None
    ) -> bool:
        with self._screen:
            if self.as_json:
                said = {"container": container.name, "moved": moved, "reason": why, "receipt": receipt}
                typer.echo(json.dumps(said))
            elif moved:
                took = sum(step["seconds"] for step in (receipt or {})["steps"])
                typer.echo(printable(f"{container.name}: moved in {took:.1f} s"))
            else:
                typer.echo(printable(f"{container.name}: {why}"), err=not self.options["dry_run"])
        return moved


def evacuate(
    dest: str = _DEST,
    parallel: int = _PARALLEL,
    tcp: str = TCP,
    bandwidth: int = BANDWIDTH,
    with_volumes: bool = WITH_VOLUMES,
    rounds: int = ROUNDS,
    max_downtime: str = MAX_DOWNTIME,
    timeout: str = TIMEOUT,
    engine: str = ENGINE,
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Find them, and have the mover move each."""
    require_root("migrrdma evacuate")
    require_tcp(tcp)
    movable, others = _running([engine] if engine else list(ENGINES))
    for one in others:
        typer.echo(printable(f"{one.name} stays: it was not started with --runtime=migrrdma"), err=True)
    options = {
        "destination": dest,
        "dry_run": dry_run,
        "keep_source": False,
        "bandwidth": (bandwidth << 20) // parallel,
        "tcp": tcp,
        "with_volumes": with_volumes,
        "rounds": rounds,
        "max_downtime": seconds_of(max_downtime, "--max-downtime"),
        "timeout": seconds_of(timeout, "--timeout"),
    }
    evacuation = _Evacuation(options, as_json)
    with _stopped_by_signals(evacuation), ThreadPoolExecutor(parallel) as pool:
        moved = list(pool.map(lambda one: evacuation.move(*one), movable))
    if not all(moved) or others:
        raise typer.Exit(1)
    if not movable and not as_json:
        typer.echo("no container runs here that would have to move")


def _running(engines: list[str]) -> tuple[list[tuple[str, Container]], list[Container]]:
    """Those that can be moved, each with its engine, and those that another runtime runs."""
    movable: list[tuple[str, Container]] = []
    others: list[Container] = []
    for name in engines:
        try:
            engine = by_name(name)
            found = [one for one in engine.containers() if one.running]
        except EngineError:
            if len(engines) == 1:
                raise
            continue  # it is not on this host
        movable += [(name, one) for one in found if engine.adopts(one)]
        others += [one for one in found if not engine.adopts(one)]
    return movable, others


@contextmanager
def _stopped_by_signals(evacuation: _Evacuation) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        print("undoing what is under way …", file=sys.stderr, flush=True)
        evacuation.stop()

    former = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
