"""Second names for a dump's images: containerd deletes the first ones when anything fails after the dump.

containerd has an application dumped into a folder of its own, packs that into its content store, and removes it,
whatever came of the packing: where its disk is full then, or the OCI runtime was killed, an application that has ended
would be lost with it. So the runtime gives the images second names beside that folder (hard links: no byte is copied),
and the agent takes those away when the migration has ended. ``migrrdma checkpoint import`` takes what is kept.

The agent names a *pointer* (`AgentConfig.kept`), a symbolic link in its state directory by which it finds what is kept.
Nothing heavy is imported here.
"""

import contextlib
import os

_ENGINES = "ctrd-checkpoint"
"""How the name of containerd's folder begins (``services/tasks/local.go``)."""

_OURS = "migrrdma-images-"

_HOST = "/proc/1/root"
"""The host's files as its first process sees them: the agent has a /tmp of its own (migrrdma-agent.service)."""


def are_the_engines(images: str) -> bool:
    """Whether who has asked for a dump into this folder will remove it."""
    return os.path.basename(images).startswith(_ENGINES)


def prepare(pointer: str, images: str) -> str:
    """Make the folder that will keep the images, and its pointer; `OSError`: there is no room for them."""
    # Beside the images themselves, wherever a link has led to them: a hard link leaves no file system. And the agent,
    # which finds the folder from the host's root, would follow a link from a root of its own.
    where = os.path.dirname(os.path.realpath(images))
    folder = os.path.join(where, f"{_OURS}{os.path.basename(pointer)}")
    os.symlink(folder, pointer)
    os.mkdir(folder, 0o700)
    return folder


def keep(folder: str, images: str) -> None:
    """Give everything in ``images`` a second name in ``folder``; `OSError`: not everything has one."""
    for here, folders, names in os.walk(images):
        there = os.path.join(folder, os.path.relpath(here, images))
        for name in folders:
            os.mkdir(os.path.join(there, name), 0o700)
        for name in names:
            os.link(os.path.join(here, name), os.path.join(there, name), follow_symlinks=False)


def forget(pointer: str) -> None:
    """Remove what is kept, then its pointer; none is no error. `OSError`: some of it is still there."""
    import shutil  # not the runtime's, which removes nothing

    try:
        folder = os.readlink(pointer)
    except FileNotFoundError:
        return
    if os.path.basename(folder) == f"{_OURS}{os.path.basename(pointer)}":
        seen = f"{_HOST}{folder}" if os.access(f"{_HOST}/", os.X_OK) else folder
        with contextlib.suppress(FileNotFoundError):  # it was never made, or has ended with the boot
            shutil.rmtree(seen)
    os.unlink(pointer)
