"""One change to the host: planned first, made later, or only shown."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.base.errors import InstallError


@dataclass(frozen=True)
class Step:
    """What is changed and how. Without ``apply`` it stays: because of ``note``, or because it is right."""

    what: str
    apply: Callable[[], None] | None = None
    note: str = ""
    preview: str = ""
    """The change in full, for ``--dry-run``."""


def perform(steps: Iterable[Step]) -> Iterator[Step]:
    """Make the changes one after the other, yielding each when it is made."""
    for step in steps:
        if step.apply is not None:
            try:
                step.apply()
            except OSError as error:
                raise InstallError(
                    f"{step.what}: {error.strerror or error}; run the command again when that is solved"
                ) from error
        yield step


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep a second install or uninstall out for as long as this one works.

    The directory is made for it, and removed when nothing else is in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InstallError(f"{directory}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_still(directory, handle):
            raise BlockingIOError  # the one that had it removed it just now: that one was at work
        yield
        with suppress(OSError):
            directory.rmdir()
    except BlockingIOError as error:
        raise InstallError("another migrrdma install or uninstall is at work on this host") from error
    finally:
        os.close(handle)


def _is_still(directory: Path, handle: int) -> bool:
    try:
        return os.path.samestat(directory.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
