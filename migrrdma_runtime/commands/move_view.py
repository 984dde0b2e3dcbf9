"""How a move is shown while it is under way: line by line, for programs, or live on a terminal; and its receipt."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import typer

from migrrdma_runtime.base.escaping import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Event = dict[str, Any]


class View(Protocol):
    """Shows the events of one move or of several."""

    def __enter__(self) -> View:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave what was shown on the screen."""

    def show(self, event: Event) -> None:
        """Show what has happened."""

    def done(self, found: Event) -> None:
        """Show the receipt."""


def choose(*, as_json: bool) -> View:
    """The one that fits who reads it."""
    if as_json:
        return _Json()
    return _Live() if sys.stdout.isatty() else _Lines()


def receipt(found: Event) -> Iterator[str]:
    """What a move has cost, in one screen."""
    yield (
        f"{found['container']} has moved from {found['source']} to {found['destination']} (move {found['move']})"
    )
    for step in found["steps"]:
        yield _figure(step["name"], f"{step['seconds']:.3f} s")
    for what, count in found["bytes"].items():
        yield _figure(f"{what} sent", f"{count / (1 << 20):.1f} MiB")
    if downtime := found.get("downtime"):
        yield _figure("stood still", f"{downtime:.3f} s")
    if expected := found.get("expected_downtime"):
        yield _figure("expected to stand still", f"{expected:.3f} s")
    for host, seconds in found.get("blackouts", {}).items():
        yield _figure(f"blackout at {host}", f"{seconds:.3f} s")
    for lost in found.get("lost", []):
        yield f"  lost: {lost}"


def _round(event: Event) -> str:
    """What a round of memory was, and what it has left."""
    return (
        f"round {event['round']}: {_mib(event['bytes'])} MiB sent, at {_mib(event['rate'])} MiB/s; "
        f"{_mib(event['left'])} MiB left, {_mib(event['dirty_rate'])} MiB/s written to; "
        f"expected to stand still for {event['expected_downtime']:.1f} s"
    )


def _mib(count: float) -> str:
    return f"{count / (1 << 20):.1f}"


def _figure(name: str, value: str) -> str:
    return f"  {name:<28} {value:>12}"


class _Lines:
    """A line for each step."""

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        if event.get("state") == "begun":
            typer.echo(printable(f"{event['step']} …"))
        elif "undone" in event:
            typer.echo(printable(f"undone: {event['undone']}"), err=True)
        elif "waiting" in event or "note" in event:
            typer.echo(printable(event.get("waiting") or event["note"]), err=True)
        elif "round" in event:
            typer.echo(f"  {_round(event)}")

    def done(self, found: Event) -> None:
        for line in receipt(found):
            typer.echo(printable(line))


class _Json(_Lines):
    """Every event, one to a line."""

    def show(self, event: Event) -> None:
        typer.echo(json.dumps(event))

    def done(self, found: Event) -> None:
        typer.echo(json.dumps({"receipt": found}))


class _Live(_Lines):
    """Each step with its time, and of what is sent how much and how fast."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description:<34}"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> View:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        if "step" in event:
            self._step(printable(event["step"]), event["state"])
        elif "sending" in event:
            task = self._task(f"  {printable(event['sending'])}")
            self._progress.update(
                task, completed=event["bytes"], total=max(event["total"], event["bytes"], 1)
            )
        elif "undone" in event:
            self._progress.console.print(f"undone: {printable(event['undone'])}", markup=False)
        elif "waiting" in event or "note" in event:
            self._progress.console.print(printable(event.get("waiting") or event["note"]), markup=False)
        elif "round" in event:
            self._progress.console.print(_round(event), markup=False)

    def _step(self, name: str, state: str) -> None:
        task = self._task(name)
        if state == "done":
            self._progress.update(task, completed=1, total=1)
        if state != "begun":
            self._progress.stop_task(task)

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None)
        return self._tasks[name]
