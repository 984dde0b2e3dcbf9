"""The machine the command line works on: its files below one root, and the programs it runs.

Both can be replaced, so that tests install into a fake root and examine fake machines.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Host:
    """A machine's file system, from its root directory."""

    root: Path = Path("/")

    def path(self, absolute: str | Path) -> Path:
        """Where ``absolute`` is as seen from here."""
        return self.root / str(absolute).lstrip("/")

    def name(self, path: Path) -> str:
        """The absolute path the machine itself would use: the inverse of :meth:`path`."""
        return "/" + str(path.relative_to(self.root))

    def read(self, absolute: str) -> str | None:
        """A small text file, stripped; None when it cannot be read."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None


@dataclass(frozen=True)
class Finished:
    """What became of a program."""

    status: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The last line it said on stderr, else on stdout: where programs put what went wrong."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1].strip() if lines else f"exit status {self.status} without a message"


class Runner(Protocol):
    """Runs a program to its end; None when there is no such program."""

    def __call__(self, argv: Sequence[str], /) -> Finished | None:
        """Wait for it, within a deadline."""


DEADLINE_S = 60
"""For any one program: generous, because ``criu check`` takes seconds on an emulated machine."""


def run(argv: Sequence[str], /) -> Finished | None:
    """The real :class:`Runner`."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        return Finished(126, "", f"{argv[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Finished(124, "", f"{argv[0]} gave no answer within {DEADLINE_S} seconds")
    return Finished(done.returncode, done.stdout, done.stderr)
