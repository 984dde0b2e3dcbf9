"""What has changed in a container's writable layer since it was sent first, and what may stay of what was sent.

It is looked at twice: before the first copy, while the container runs, and when it stands still. What has another
inode, size or time by then is sent again, whole. What stands at its place there is removed first, so that files may
have become folders, and folders may have been renamed onto each other; and so is what was made and copied after the
first look, and has gone since: of every folder in which something has changed it is told what stays. A file's status
change time cannot be set by anybody (inode(7)); of one so young that the next change may have had the same it is taken
for changed.
"""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.wire.mover_messages import CHUNK

_YOUNG_NS = 100_000_000
"""Far more than the kernel's clock of times in inodes moves at once (a jiffy)."""
_MOST_TOLD = 256 << 20
"""Bytes of names."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class _Entry:
    inode: int
    mode: int
    size: int
    device: int
    changed: int
    modified: int

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class Changes:
    """Names are from the layer's root; folders come before what is in them, and the root, first of all, is empty."""

    stays: dict[str, list[str]]
    """Of folders what is in them that stays as it was sent first; all else in them is to be removed."""
    changed: list[str]
    """What is to be sent, when that has been done; the root is ``.``."""


class Layer:
    """A layer, and how it was when it was looked at first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._first: dict[str, _Entry] = {}

    def look(self) -> None:
        """Remember how it is, before it is read."""
        young = time.time_ns() - _YOUNG_NS
        self._first = {
            name: one if one.changed < young - _coarseness(one.changed) else replace(one, changed=-1)
            for name, one in _entries(self.root)
        }

    def changes(self) -> Changes:
        """What is to be done for it to be there as it is now; nobody changes it any more."""
        now = dict(_entries(self.root))
        changed = {name for name, one in now.items() if self._first.get(name) != one}
        # One that was renamed away and back has changed, and what it was in, but nothing below it; by its name nothing
        # may have been sent, or what another had. That has changed that way, too, which costs only bytes.
        elsewhere: set[str] = set()
        for name, one in now.items():  # folders come before what is in them
            folder = name.rpartition("/")[0] or "."
            if name != "." and one.is_folder and name in changed and folder in changed:
                elsewhere.add(name)
            if folder in elsewhere:
                changed.add(name)
                if one.is_folder:
                    elsewhere.add(name)
        stay: dict[str, list[str]] = {}
        told = {""} if "." in changed else set()
        for name, one in now.items():
            if name == ".":
                continue
            folder, _, last = name.rpartition("/")
            is_known_folder = one.is_folder and self._was_folder(name)
            if name not in changed or is_known_folder:
                stay.setdefault(folder, []).append(last)
            else:
                told.add(folder)
            if name in changed and is_known_folder:
                told.add(name)
        return Changes({one: stay.get(one, []) for one in sorted(told)}, sorted(changed))

    def _was_folder(self, name: str) -> bool:
        before = self._first.get(name)
        return before is not None and before.is_folder


def told(stays: dict[str, list[str]]) -> AsyncGenerator[bytes, None]:
    """`Changes.stays`, for `keep_only` there: a folder behind a slash, and what stays in it."""
    words = (word for folder, names in stays.items() for word in (f"/{folder}", *names))
    return _in_chunks(b"".join(os.fsencode(one) + b"\0" for one in words))


async def keep_only(root: Path, chunks: AsyncIterator[bytes]) -> None:
    """Remove from a layer what is not told to stay; no name leads out of it, and a folder that has gone is none."""
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > _MOST_TOLD:
            raise AgentError(f"{root}: more than {_MOST_TOLD >> 20} MiB of names")
    await asyncio.to_thread(_keep_only, root, bytes(content).split(b"\0")[:-1])


def _keep_only(root: Path, words: list[bytes]) -> None:
    stays: dict[bytes, set[bytes]] = {}
    of: set[bytes] = set()
    for word in words:
        if word.startswith(b"/"):
            of = stays.setdefault(word[1:], set())
        else:
            of.add(word)
    try:
        for folder, names in stays.items():
            _clear(root, folder, names)
    except OSError as error:
        raise AgentError(f"{root}: {error.strerror} ({error.filename})") from error


def _clear(root: Path, folder: bytes, stays: set[bytes]) -> None:
    here = _open(root, folder)
    if here is None:
        return
    try:
        for name in os.listdir(here):  # noqa: PTH208 (by its descriptor)
            if os.fsencode(name) in stays:
                continue
            if stat.S_ISDIR(os.lstat(name, dir_fd=here).st_mode):
                remove_tree(os.fsencode(name), f"/proc/self/fd/{here}")
            else:
                os.unlink(name, dir_fd=here)
    finally:
        os.close(here)


def remove_tree(name: bytes, within: str) -> None:
    """By rm(1), which no depth stops: Python's own calls itself for each folder, and holds it open."""
    done = subprocess.run(
        [b"rm", b"-rf", b"--one-file-system", b"--", name], cwd=within, capture_output=True, check=False
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines() or ["rm has failed"]
        raise AgentError(lines[0])


def _open(root: Path, folder: bytes) -> int | None:
    """The folder, reached by nothing but folders; None: there is none."""
    parts = folder.split(b"/") if folder else []
    if any(one in (b"", b".", b"..") for one in parts):
        raise AgentError(f"{os.fsdecode(folder)!r} is no folder in a layer")
    here = os.open(root, _FOLDER)
    for one in parts:
        try:
            below = os.open(one, _FOLDER, dir_fd=here)
        except (FileNotFoundError, NotADirectoryError):
            return None
        finally:
            os.close(here)
        here = below
    return here


def _entries(root: Path) -> list[tuple[str, _Entry]]:
    """Everything in a layer; what goes away meanwhile is not there."""
    found: list[tuple[str, _Entry]] = [(".", _entry(root.lstat()))]
    waiting = [""]
    try:
        while waiting:
            folder = waiting.pop()
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(root / folder) as entries:
                for one in entries:
                    with suppress(FileNotFoundError):
                        name, status = f"{folder}{one.name}", one.stat(follow_symlinks=False)
                        found.append((name, _entry(status)))
                        if stat.S_ISDIR(status.st_mode):
                            waiting.append(f"{name}/")
    except OSError as error:  # such as a path that is longer than the kernel takes
        raise AgentError(f"{error.filename!s:.200}: {error.strerror}") from error
    return found


def _coarseness(time_ns: int) -> int:
    """A file system with times of whole seconds (ext3, ext4 with small inodes, NFS to such) has none between."""
    return 0 if time_ns % 1_000_000_000 else 2_000_000_000


def _entry(status: os.stat_result) -> _Entry:
    return _Entry(
        status.st_ino,
        status.st_mode,
        0 if stat.S_ISDIR(status.st_mode) else status.st_size,
        status.st_rdev,
        status.st_ctime_ns,
        status.st_mtime_ns,
    )


async def _in_chunks(content: bytes) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), CHUNK):
        yield content[at : at + CHUNK]
