"""Progress on long work: what is being done, and how long it took, on stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console

from .errors import BuildError

console = Console(stderr=True, highlight=False)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Announce ``what``, and say how long it took or that it failed."""
    start = time.monotonic()
    console.print(f"  {what} …")
    try:
        yield
    except BaseException:
        console.print(f"[red]✗[/red] {what}: failed after {time.monotonic() - start:.0f} s")
        raise
    console.print(f"[green]✓[/green] {what} [dim]({time.monotonic() - start:.1f} s)[/dim]")


def run_logged(command: Sequence[str | Path], log: Path, timeout: float) -> None:
    """Run ``command`` with its output in ``log``; on failure quote the log's last lines."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            code = _run_group(command, output, timeout)
            problem = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            problem = f"no end after {timeout:.0f} s"
        except FileNotFoundError as exc:
            raise BuildError(
                f"{command[0]} is not installed; `make` installs it (lab/host-packages)"
            ) from exc
    if problem:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildError(f"{command[0]}: {problem}; the end of {log}:\n{tail}")


def _run_group(command: Sequence[str | Path], output: IO[bytes], timeout: float) -> int:
    """Run ``command`` to its end; if it is given up, all that it has started ends with it, and nobody writes on."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0
    ) as process:
        try:
            return process.wait(timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
