"""The host's cgroup trees, which CRIU mounts in a folder of its working directory while it restores.

A CRIU that is killed leaves them there (``.criu.cgyard.*``, ``prepare_cgroup_sfd`` in its cgroup.c), and whoever then
removes the checkpoint with ``rm -r`` removes cgroups of the host. The runtime that had begun it takes them away. When
that was killed as well, the next one does, or ``checkpoint import``, or systemd when it starts the agent: as a program
this module does nothing else, with rights and a view of the host that the agent itself has not.
"""

import contextlib
import os
import re

from migrrdma_runtime.base import kernel_file, unmount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = ".criu.cgyard."
_NAME = re.compile(r"\.criu\.cgyard\.[A-Za-z0-9]{6}", re.ASCII)


@contextlib.contextmanager
def removed(work: str) -> "Iterator[None]":
    """Afterwards unmount what this run's CRIU has left there, and before it whatever lies around on this host.

    What was there before stays, which somebody may work with, and so does all of it while another runtime works in the
    same directory: several containers can be restored at once from the same images, where by runc's default CRIU works
    as well. Each has a lock on it, which ends with the runtime.
    """
    import fcntl

    remove_orphans()
    earlier = _yards(work)
    # Not waited for: whoever may read the directory can lock it.
    handle, _ = _lock(work, fcntl.LOCK_SH)
    try:
        yield
    finally:
        _close(handle)
        # The low-level runtime may have made the directory only now.
        handle, is_locked = _lock(work, fcntl.LOCK_EX)
        if is_locked:
            remove(work, earlier)
        _close(handle)


def _lock(work: str, kind: int) -> "tuple[int, bool]":
    """The directory, open, -1 if there is none; and whether it is locked, as far as its file system has locks."""
    import fcntl

    try:
        handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1, False
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return handle, False
    except OSError:
        pass
    return handle, True


def _close(handle: int) -> None:
    if handle >= 0:
        os.close(handle)


def _yards(work: str) -> "set[str]":
    try:
        return {name for name in os.listdir(work) if name.startswith(_PREFIX)}
    except OSError:
        return set()


def remove(work: str, but: "set[str] | None" = None) -> None:
    """Unmount what is left there but these; what cannot be unmounted stays."""
    for name in _yards(work) - (but or set()):
        _unmount(os.path.join(work, name))


def _unmount(yard: str) -> None:
    unmount.detach(yard)
    with contextlib.suppress(OSError):
        os.rmdir(yard)


def remove_orphans() -> None:
    """Unmount those that lie anywhere on this host and that no process works with any more.

    Which they are the kernel says: what only has such a name in some folder is not looked at. CRIU has a descriptor of
    a yard before it mounts the first tree in it, and keeps it until it unmounts all; so has every process that it makes
    until it lets it go. A yard without a tree harms nobody, and its CRIU may be about to open it.
    """
    mounted = [_Mount(line) for line in kernel_file.lines("/proc/self/mountinfo")]
    yards = [
        one.point for one in mounted if one.kind == "tmpfs" and _NAME.fullmatch(os.path.basename(one.point))
    ]
    yards = [yard for yard in yards if any(one.point.startswith(f"{yard}/") for one in mounted)]
    if not yards:
        return
    in_use = _open_folders()
    for yard in yards:
        if os.path.basename(yard) not in in_use:
            _unmount(yard)


class _Mount:
    """A line of ``mountinfo`` (proc_pid_mountinfo(5))."""

    def __init__(self, line: str) -> None:
        fields, _, rest = line.partition(" - ")
        self.point = kernel_file.unescaped(fields.split(" ")[4])
        self.kind = rest.partition(" ")[0]


def _open_folders() -> "set[str]":
    """The last names of all folders that some process has open, as far as they are a yard's.

    Names, since a process in another mount namespace has another mount; nobody but root learns of one.
    """
    found = set()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        folder = f"/proc/{pid}/fd"
        try:
            handles = os.listdir(folder)
        except OSError:  # it has ended
            continue
        for handle in handles:
            with contextlib.suppress(OSError):
                name = os.path.basename(os.readlink(f"{folder}/{handle}"))
                if name.startswith(_PREFIX):
                    found.add(name)
    return found


if __name__ == "__main__":
    remove_orphans()
