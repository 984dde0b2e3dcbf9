"""Files are replaced whole or not at all, whatever kills us in the middle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def draft_of(target: Path) -> Path:
    """The name under which ``target`` is written; only we give such names."""
    return target.with_name(f".{target.name}.migrrdma")


def replace(
    path: Path, content: bytes, mode: int = 0o644, approve: Callable[[Path], None] | None = None
) -> None:
    """Put ``content`` at ``path``, keeping mode, owner and extended attributes of a file that is there.

    A missing directory is made. A symbolic link stays and what it points at is replaced. ``approve`` is shown
    the finished file before it takes its place and may raise to keep it from doing so.
    """
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(target)
    draft.unlink(missing_ok=True)  # left by one that was killed here; there is one installer at a time
    try:
        with draft.open("xb") as file:
            os.fchmod(file.fileno(), mode)
            if target.exists():
                _take_over(target, file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if approve is not None:
            approve(draft)
        draft.rename(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def point(link: Path, at: str) -> None:
    """Make ``link`` a symbolic link to ``at``, without a moment in which it is missing."""
    draft = draft_of(link)
    draft.unlink(missing_ok=True)
    draft.symlink_to(at)
    draft.rename(link)
    sync_directory(link.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a crash: a rename alone only promises order."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_over(target: Path, handle: int) -> None:
    status = target.stat()
    os.fchown(handle, status.st_uid, status.st_gid)
    os.fchmod(handle, status.st_mode & 0o7777)
    for attribute in os.listxattr(target):  # the SELinux label among them
        os.setxattr(handle, attribute, os.getxattr(target, attribute))
