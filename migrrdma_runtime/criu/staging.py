"""Which checkpoint the next start of a container goes on from (``shim/staged.py`` restores it).

A link for each container, by its id, to the images, where its engine keeps them: where those have gone, as with a
container that was removed, nothing is staged. For an engine that keeps none it is the folder of the images itself.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from migrrdma_runtime.base.errors import CheckpointDirError
from migrrdma_runtime.base.files import sync_directory


def stage(folder: Path, container: str, checkpoint: Path) -> None:
    """Have the next start of ``container`` (a full id) restore what is in ``checkpoint``, and nothing staged before."""
    draft = folder / f".{container}.partial"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)  # left by one that was killed
        draft.symlink_to(checkpoint)
        draft.rename(folder / container)
        _remove_of_removed(folder)
        sync_directory(folder)
    except OSError as error:
        raise CheckpointDirError(
            f"{checkpoint} is in place, and cannot be staged in {folder}: {error.strerror}"
        ) from error


def _remove_of_removed(folder: Path) -> None:
    """Take away the links of containers that were removed, of which nobody else tells us.

    Only where the folder that holds all of an engine's containers is there: its disk may not be.
    """
    for link in folder.iterdir():
        with suppress(OSError):  # an image's folder, or gone meanwhile
            container = link.readlink().parent.parent  # its checkpoints are in a folder of their own
            if container.parent.is_dir() and not container.exists():
                link.unlink()


def staged(folder: Path, container: str) -> Path | None:
    """The checkpoint that the next start of ``container`` restores."""
    link = folder / container
    return Path(os.path.realpath(link)) if link.is_dir() else None


def discard(folder: Path, container: str) -> bool:
    """Have ``container`` begin anew; whether anything was staged. Images that its engine keeps stay there."""
    link = folder / container
    try:
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        else:
            link.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CheckpointDirError(f"{link}: {error.strerror}") from error
    return True
