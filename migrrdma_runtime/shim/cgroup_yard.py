"""The host's cgroup trees, which CRIU mounts in a folder of its working directory while it restores.

A CRIU that is killed leaves them there (``.criu.cgyard.*``, ``prepare_cgroup_sfd`` in its cgroup.c), and whoever then
removes the checkpoint with ``rm -r`` removes cgroups of the host.
"""

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = ".criu.cgyard."
_DETACH_NO_FOLLOW = 2 | 8
"""``MNT_DETACH`` and ``UMOUNT_NOFOLLOW`` (umount2(2))."""


@contextlib.contextmanager
def removed(work: str) -> "Iterator[None]":
    """Unmount what a CRIU that is no more has left there, before and after; what cannot be unmounted stays.

    So does all of it while another runtime works in the same directory: several containers can be restored at once from
    the same images, where by runc's default CRIU works as well. Each has a lock on it, which ends with the runtime.
    """
    handle = _open(work)
    try:
        yield
    finally:
        _close(handle)
        _close(_open(work))  # the low-level runtime may have made it only now


def _open(work: str) -> int:
    """Remove them if nobody works there, and have a lock on it from then on; -1: there is no such directory."""
    import fcntl

    try:
        handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(work)
    except BlockingIOError:
        pass
    except OSError:  # a file system without locks
        remove(work)
    with contextlib.suppress(OSError):
        # Not waited for: whoever may read the directory can lock it.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return handle


def _close(handle: int) -> None:
    if handle >= 0:
        os.close(handle)


def remove(work: str) -> None:
    """Unmount what is left there; what cannot be unmounted stays."""
    try:
        names = [name for name in os.listdir(work) if name.startswith(_PREFIX)]
    except OSError:
        return
    for name in names:
        import ctypes

        path = os.path.join(work, name)
        while ctypes.CDLL(None).umount2(os.fsencode(path), _DETACH_NO_FOLLOW) == 0:
            pass  # one may lie upon the other
        try:
            os.rmdir(path)
        except OSError:
            continue
