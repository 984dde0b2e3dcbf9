"""The host's cgroup trees, which CRIU mounts in a folder of its working directory while it restores.

A CRIU that is killed leaves them there (``.criu.cgyard.*``, ``prepare_cgroup_sfd`` in its cgroup.c), and whoever then
removes the checkpoint with ``rm -r`` removes cgroups of the host.
"""

import os

_PREFIX = ".criu.cgyard."
_DETACH_NO_FOLLOW = 2 | 8
"""``MNT_DETACH`` and ``UMOUNT_NOFOLLOW`` (umount2(2))."""


def remove(work: str) -> None:
    """Unmount what a CRIU that is no more has left there; what cannot be unmounted stays."""
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
