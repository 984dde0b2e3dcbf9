"""A checkpoint as a directory: found, examined and copied whole or not at all.

The directory comes from another host, so nothing in it is taken on trust: no link is followed, nothing but
files and directories is copied, and what is missing is named before the copy begins.

It is opened once, and everything after that is done below its descriptor: whoever may rename its parent could put
another in its place between the look at its owner and the copy.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import CheckpointDirError
from migrrdma_runtime.base.files import sync_directory

_INVENTORY = "inventory.img"
_INVENTORY_MAGIC = 0x58313116
_REQUIRED = (_INVENTORY, "pstree.img", "descriptors.json")
"""CRIU's table of contents, its process tree, and where runc keeps the standard streams."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A FIFO that has taken a file's place is not waited for."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_BLOCK = 1 << 20

_DEEPEST = 7
"""Folders within each other: CRIU makes one, ``criu.work``. Eight of the longest names are half a path."""


@dataclass(frozen=True)
class CheckpointDir:
    """An examined checkpoint, open."""

    path: Path
    """By which its user knows it; what is read is read below `handle`."""

    handle: int
    directories: dict[Path, os.stat_result]
    """Parents first, itself (the empty path) before all."""

    files: dict[Path, os.stat_result]

    @property
    def size(self) -> int:
        """The bytes it occupies: holes are not copied."""
        return sum(status.st_blocks * 512 for status in self.files.values())


def check_name(name: str) -> None:
    """Docker's own rule, which it does not enforce when it starts from a checkpoint."""
    if not _NAME.fullmatch(name):
        raise CheckpointDirError(
            f"{name!r} cannot be a checkpoint's name: two or more of letters, digits, '_', '.' and '-', "
            "beginning with a letter or digit (--name gives another one)"
        )


def find(directory: Path, name: str | None) -> Path:
    """The checkpoint at ``directory``, or the one in it: ``--checkpoint-dir`` makes a folder for each."""
    if not directory.is_dir():
        raise CheckpointDirError(f"{directory} is not a directory")
    if _looks_like_one(directory):
        return directory
    inside = sorted(path.name for path in _listed(directory) if path.is_dir() and _looks_like_one(path))
    if name in inside:
        return directory / name
    if len(inside) == 1:
        return directory / inside[0]
    if inside:
        raise CheckpointDirError(
            f"{directory} holds several checkpoints ({', '.join(inside)}); name one of them"
        )
    raise CheckpointDirError(f"{directory} holds no checkpoint: there is no {_INVENTORY} in it")


@contextmanager
def examine(directory: Path) -> Iterator[CheckpointDir]:
    """Open it, and make sure that it is complete and holds nothing but files and directories."""
    try:
        handle = os.open(directory, _FOLDER)
    except NotADirectoryError as error:  # which a link is as well, to this call
        raise CheckpointDirError(f"{directory} is no directory of its own: name that") from error
    except OSError as error:
        raise CheckpointDirError(f"{directory}: {error.strerror}") from error
    try:
        yield _examined(directory, handle)
    finally:
        os.close(handle)


def _examined(directory: Path, handle: int) -> CheckpointDir:
    found = CheckpointDir(directory, handle, {Path(): os.fstat(handle)}, {})
    try:
        for path, status in _walk(directory, handle):
            if stat.S_ISDIR(status.st_mode):
                found.directories[path] = status
            elif stat.S_ISREG(status.st_mode):
                found.files[path] = status
            else:
                raise CheckpointDirError(
                    f"{directory / path} is {_kind(status.st_mode)}; a checkpoint holds only plain files"
                )
        _require_complete(found)
    except OSError as error:
        raise CheckpointDirError(f"{directory}: {error.strerror}") from error
    return found


def _require_complete(found: CheckpointDir) -> None:
    for name in _REQUIRED:
        if Path(name) not in found.files or not found.files[Path(name)].st_size:
            raise CheckpointDirError(f"{found.path} is not a complete checkpoint: {name} is missing or empty")
    if Path(paths.PLUGIN_IMAGE) in found.files and Path(paths.MANIFEST) not in found.files:
        raise CheckpointDirError(
            f"{found.path} is not a complete checkpoint: it holds RDMA ({paths.PLUGIN_IMAGE}), and {paths.MANIFEST} "
            "is missing, without which nobody may restore its connections"
        )
    if _magic(found) != _INVENTORY_MAGIC:
        raise CheckpointDirError(f"{found.path / _INVENTORY} is not an image that CRIU wrote")


def require_owned(source: CheckpointDir, trusted: str) -> None:
    """Refuse what somebody may have written whom nobody has named: whatever it holds is restored with root's rights.

    ``trusted``: a user, by name or number, whose files are taken as well as root's; "" for none.
    """
    owners = {0, os.geteuid(), *({_number_of(trusted)} if trusted else ())}
    # As each was when it was examined, its folder first: in one that nobody else may write to, nobody changes it since.
    for one, status in (source.directories | source.files).items():
        path = source.path / one
        if status.st_uid not in owners:
            whose = _name_of(status.st_uid)
            raise CheckpointDirError(
                f"{path} is {whose}'s, who could have put anything into it, and it is restored with root's rights: if "
                f"you trust {whose}, say so with --trust {whose}, or take it over by `chown -hR root: {source.path}`"
            )
        # Where there is an access control list, the group's bits say what any of those it names may do at most.
        by_group = status.st_mode & stat.S_IWGRP and (status.st_gid or _has_access_list(source, one))
        if status.st_mode & stat.S_IWOTH or by_group:
            raise CheckpointDirError(
                f"others may write to {path} (mode {stat.S_IMODE(status.st_mode):04o}), and it is restored with root's "
                f"rights: `chmod -R go-w {source.path}`, if you trust whoever may have done so"
            )


def _has_access_list(source: CheckpointDir, one: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(f"/proc/self/fd/{source.handle}/{one}")
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return False
        raise CheckpointDirError(f"{source.path / one}: {error.strerror}") from error


def _number_of(user: str) -> int:
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise CheckpointDirError(f"there is no user {user} here: --trust takes a name or a number") from error


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def copy(source: CheckpointDir, target: Path, *, replace: bool, progress: Callable[[int], None]) -> None:
    """Copy to ``target``, which appears complete or not at all.

    ``progress`` is told of every stretch of bytes. The copy grows beside ``target``'s parent, where Docker
    does not take it for a checkpoint.
    """
    if target.exists() and not replace:
        raise CheckpointDirError(
            f"a checkpoint {target.name} is there already: {target} (--force replaces it)"
        )
    draft = target.parent.parent / f".checkpoint-{target.name}.partial"
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        _require_space(target.parent, source.size)
        with _draft(draft):
            for directory in source.directories:
                (draft / directory).mkdir(mode=0o700, exist_ok=directory == Path())
            for file in source.files:
                _copy_file(source, file, draft / file, progress)
            for directory in source.directories:
                sync_directory(draft / directory)
            _put_in_place(draft, target)
    except OSError as error:
        raise CheckpointDirError(
            f"copying {source.path} to {target}: {error.strerror}; nothing was left behind"
        ) from error


def _looks_like_one(directory: Path) -> bool:
    return (directory / _INVENTORY).is_file()


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise CheckpointDirError(f"{directory}: {error.strerror}") from error


def _walk(directory: Path, handle: int, below: Path = Path()) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything in it, parents first, no symbolic link followed."""
    if len(below.parts) > _DEEPEST:
        raise CheckpointDirError(f"{directory / below} is deeper than a checkpoint's folders go: it is none")
    for name in sorted(os.listdir(handle)):
        status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            yield below / name, status
            continue
        inside = os.open(name, _FOLDER, dir_fd=handle)
        try:
            yield below / name, os.fstat(inside)
            yield from _walk(directory, inside, below / name)
        finally:
            os.close(inside)


@contextmanager
def _opened(source: CheckpointDir, file: Path) -> Iterator[int]:
    """One of its files, by way of its own folders only."""
    with ExitStack() as stack:
        folder = source.handle
        for name in file.parent.parts:
            folder = os.open(name, _FOLDER, dir_fd=folder)
            stack.callback(os.close, folder)
        handle = os.open(file.name, _FILE, dir_fd=folder)
        stack.callback(os.close, handle)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise CheckpointDirError(f"{source.path / file} is no plain file any more")
        yield handle


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds[stat.S_IFMT(mode)]


def _magic(source: CheckpointDir) -> int:
    with _opened(source, Path(_INVENTORY)) as handle:
        first = os.pread(handle, 4, 0)
    return struct.unpack("<I", first)[0] if len(first) == 4 else 0


def _require_space(directory: Path, needed: int) -> None:
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise CheckpointDirError(
            f"the checkpoint needs {needed >> 20} MiB and {directory} has {free >> 20} MiB free"
        )


@contextmanager
def _draft(draft: Path) -> Iterator[None]:
    """An empty directory of ours alone, gone again if it could not be filled and moved to its place."""
    draft.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointDirError(f"another import is writing {draft}") from error
        try:
            for left in draft.iterdir():  # by an import that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _copy_file(source: CheckpointDir, file: Path, target: Path, progress: Callable[[int], None]) -> None:
    with (
        _opened(source, file) as reader,
        open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as writer,  # noqa: PTH123
    ):
        size = os.fstat(reader).st_size
        writer.truncate(size)
        for start, end in _data(reader, size):
            at = start
            while at < end:
                block = os.pread(reader, min(_BLOCK, end - at), at)
                if not block:
                    raise CheckpointDirError(f"{source.path / file} became shorter while it was copied")
                at += os.pwrite(writer.fileno(), block, at)
                progress(len(block))
        os.fsync(writer.fileno())


def _data(handle: int, size: int) -> Iterator[tuple[int, int]]:
    """The stretches of a file that are not holes: memory images are full of holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, end


def _put_in_place(draft: Path, target: Path) -> None:
    old = target.parent.parent / f".checkpoint-{target.name}.old"
    shutil.rmtree(old, ignore_errors=True)  # left by an import that was killed here
    if target.exists():
        target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    sync_directory(target.parent)
    shutil.rmtree(old, ignore_errors=True)
