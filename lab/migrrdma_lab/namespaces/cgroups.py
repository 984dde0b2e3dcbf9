"""The cgroups of the rack: the one thing of it that the kernel does not remove with its last process.

Version 2's hierarchy is used, which every kernel has, whatever else is mounted on this machine. The rack's cgroup is
one below its root; each node's is below that, and the node sees it as its root (a cgroup namespace).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

from ..errors import MachineError

_SECONDS = 5


def remove(top: Path) -> None:
    """Remove a tree of cgroups whose processes have ended; `MachineError` if one is still in use after 5 s."""
    deadline = time.monotonic() + _SECONDS
    while top.exists():
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if top.exists() and time.monotonic() > deadline:
            raise MachineError(f"{top} still has processes: {(top / 'cgroup.procs').read_text().split()}")


def remove_left_behind(name: str) -> None:
    """Remove the cgroups of a rack whose keeper was killed before it could."""
    with tempfile.TemporaryDirectory(prefix="rack-cgroup-") as folder:
        script = """
        present=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)
        if [ -n "$present" ]; then mount --bind "$present" "$1"; else mount -t cgroup2 cgroup2 "$1"; fi
        [ ! -d "$1/$2" ] || find "$1/$2" -depth -type d -exec rmdir {} +
        """
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "remove", folder, name],
            check=False, capture_output=True, timeout=60,
        )  # fmt: skip
