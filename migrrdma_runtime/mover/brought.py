"""Volumes and folders that are made here for a container that comes, to be filled; and removed again if it does not.

Nothing of anybody else's is filled or removed: what is here is used as it is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from migrrdma_runtime.base import kernel_file, unmount
from migrrdma_runtime.base.errors import AgentError, RefusedError
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.engine import Engine
from migrrdma_runtime.mover import layer


def missing(engine: Engine, wanted: Description, mounts: list[str]) -> list[str]:
    """What is to be made for it, of which nothing may be here: nobody else's files are filled, or removed."""
    if not mounts:
        return []
    not_here = {one.mount for one in engine.obstacles(wanted) if one.mount}
    for one in mounts:
        if one.startswith("/") and os.path.normpath(one) != one:
            raise RefusedError(f"{one} is no path of a folder that is made here")
        if one not in not_here:
            raise RefusedError(f"{one} is here by now, and is not filled: start the move again")
    return mounts


def with_parents(mounts: list[str]) -> list[str]:
    """What is to be made for it, those first that others are in; what is only on the way ends with a slash."""
    above = {
        f"{parent}/"
        for one in mounts
        if one.startswith("/")
        for parent in Path(one).parents
        if not os.path.lexists(parent) and str(parent) not in mounts
    }
    return sorted({*above, *mounts})


def make_folders(made: list[str]) -> None:
    """Make them; of ``made`` what somebody else has made meanwhile is taken away again, as it is not ours to remove."""
    for one in [one for one in made if one.startswith("/")]:
        try:
            Path(one).mkdir()
        except FileExistsError as error:
            made.remove(one)
            if not one.endswith("/"):
                made[:] = [other for other in made if other < one and other.startswith("/")]
                raise AgentError(f"{one} is here by now, and is not filled: start the move again") from error
        except OSError as error:
            raise AgentError(f"{one}: {error.strerror}") from error


def remove_folder(folder: str, *, filled: bool) -> None:
    """What is mounted below it, as a container's mounts may be, is not gone into; nor is what nobody has filled yet."""
    if folder.endswith("/") or not filled:
        with suppress(OSError):  # somebody else has put something there
            Path(folder).rmdir()
        return
    for point in _mount_points_below(folder):
        unmount.detach(point)
    layer.remove_tree(os.fsencode(folder), "/")


def _mount_points_below(folder: str) -> list[str]:
    """Where something is mounted in it, or on it."""
    found = []
    for line in kernel_file.lines("/proc/self/mountinfo"):
        point = kernel_file.unescaped(line.split(" ")[4])
        if f"{point}/".startswith(f"{folder}/"):
            found.append(point)
    return found


def used(engine: Engine, container: str) -> list[str]:
    """What containers here mount but for this one, by its id."""
    others = [one for one in engine.containers() if one.id != container]
    return [mount.called for one in others for mount in engine.mounts(one)]
