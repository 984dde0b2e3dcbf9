"""Progress on long work: what is being done, and how long it took, on stderr."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

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
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=timeout,
                check=False,
            )  # fmt: skip
            problem = f"exit code {result.returncode}" if result.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"no end after {timeout:.0f} s"
        except FileNotFoundError as exc:
            raise BuildError(
                f"{command[0]} is not installed; `make` installs it (lab/host-packages)"
            ) from exc
    if problem:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildError(f"{command[0]}: {problem}; the end of {log}:\n{tail}")
