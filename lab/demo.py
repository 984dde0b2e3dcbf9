"""The demo: a container moves from one machine of the rack to another while you watch.

Three commands do it: ``docker run --runtime=migrrdma``, ``docker checkpoint create --checkpoint-dir`` and, on
the other machine, ``docker start --checkpoint``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from migrrdma_lab.containers import COUNTER, Container, carry
from migrrdma_lab.errors import RackError
from migrrdma_lab.plan import DST, SRC
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell
from rich.console import Console

_DIRECTORY = "/root/checkpoints"
_NAME = "counter"
_CHECKPOINT = "on-the-move"

console = Console(highlight=False, width=110)


@contextmanager
def _timed(timeline: list[tuple[str, float]], what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    timeline.append((what, time.monotonic() - start))


def _show(node: Shell, command: str) -> None:
    console.print(f"[bold cyan]{node.node.name}#[/] {command}")


def _watch(container: Container, lines: int) -> None:
    """Print the next ``lines`` lines as they come."""
    follow = container.shell.command(["docker", "logs", "-f", "--tail", "1", container.name])
    with subprocess.Popen(follow, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for _ in range(lines):
            console.print(f"     [dim]{container.shell.node.name}:[/] {process.stdout.readline().rstrip()}")
        process.terminate()


def main() -> int:
    """Move a container; exit code 1 if a number was lost or printed twice."""
    rack = Rack()
    src, dst = rack.shell(SRC), rack.shell(DST)
    source = Container(src, _NAME)
    destination = source.on(dst)
    timeline: list[tuple[str, float]] = []
    for container in (source, destination):
        container.remove()
        container.shell.run("rm", "-rf", _DIRECTORY)

    console.rule("a container that counts; its state is one variable of a shell")
    _show(src, f"docker run -d --runtime=migrrdma --name {_NAME} {source.image} sh -c '{COUNTER}'")
    source.run()
    source.wait_for_line("^3$")
    _watch(source, 4)

    console.rule("checkpointed here")
    _show(src, f"docker checkpoint create --checkpoint-dir {_DIRECTORY} {_NAME} {_CHECKPOINT}")
    with _timed(timeline, "docker checkpoint create"):
        source.checkpoint(_CHECKPOINT, "--checkpoint-dir", _DIRECTORY)

    console.rule("carried over")
    _show(src, f"scp -r {_DIRECTORY} dst:{_DIRECTORY}")
    with _timed(timeline, "copy to dst"):
        carry(_DIRECTORY, _CHECKPOINT, src, dst)

    console.rule("goes on there")
    _show(dst, f"docker create --runtime=migrrdma --name {_NAME} {source.image} sh -c …")
    with _timed(timeline, "docker create"):
        destination.create()
    _show(dst, f"migrrdma checkpoint import {_DIRECTORY}/{_CHECKPOINT} {_NAME}")
    with _timed(timeline, "migrrdma checkpoint import"):
        dst.run("migrrdma", "checkpoint", "import", f"{_DIRECTORY}/{_CHECKPOINT}", _NAME)
    _show(dst, f"docker start --checkpoint {_CHECKPOINT} {_NAME}")
    with _timed(timeline, "docker start --checkpoint"):
        destination.restore(_CHECKPOINT)
    destination.wait_for_line("^[0-9]+")
    _watch(destination, 4)

    console.rule("what happened")
    for what, seconds in timeline:
        console.print(f"  {what:<28} {seconds:6.1f} s")
    console.print(f"  {'in all':<28} {sum(seconds for _, seconds in timeline):6.1f} s, in emulated machines")
    before, after = source.lines(), destination.lines()
    console.print(f"  src counted {before[0]} … {before[-1]}, dst went on with {after[0]} … {after[-1]}")
    numbers = [int(line) for line in before + after]
    if numbers != list(range(1, len(numbers) + 1)):
        console.print("[bold red]a number was lost or came twice[/]")
        return 1
    console.print("[bold green]not a number lost, none printed twice[/]")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RackError as error:
        sys.exit(f"demo: {error}")
