"""Take away what a program that was killed has left mounted."""

import os

_DETACH_NO_FOLLOW = 2 | 8
"""``MNT_DETACH`` and ``UMOUNT_NOFOLLOW`` (umount2(2))."""


def detach(path: str) -> None:
    """Unmount all that lies there, one upon the other, with what is mounted in it; nothing is no error."""
    import ctypes

    while ctypes.CDLL(None).umount2(os.fsencode(path), _DETACH_NO_FOLLOW) == 0:
        pass
