"""Where a container's writable layer is when its engine does not say: in what containerd's overlayfs mounts."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from migrrdma_runtime.base import kernel_file
from migrrdma_runtime.base.errors import EngineError

_DEADLINE_S = 30


def upper_of_process(root: Path, pid: int) -> Path:
    """Of what a process has as its root, as the kernel says."""
    try:
        mounts = (root / f"proc/{pid}/mountinfo").read_text()
    except OSError as error:
        raise EngineError(f"process {pid}: its mounts cannot be read: {error.strerror}") from error
    for line in reversed(mounts.splitlines()):
        # proc_pid_mountinfo(5): the mount point is the fifth; behind the dash are type, source and options.
        before, _, behind = line.partition(" - ")
        kind, _, options = behind.split(" ", 2)
        if before.split(" ")[4] == "/":
            if kind != "overlay":
                raise EngineError(f"process {pid}: its root is no overlay but {kind}")
            upper = _upper(options, f"process {pid}")
            return Path(kernel_file.unescaped(str(upper)))
    raise EngineError(f"process {pid} has no root")


def upper_of_snapshot(namespace: str, key: str) -> Path:
    """Of what containerd would mount."""
    what = f"snapshot {key[:12]}"
    command = ["ctr", "--namespace", namespace, "snapshots", "--snapshotter", "overlayfs", "mounts", "/", key]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{what}: ctr cannot be asked: {error}") from error
    if done.returncode:
        raise EngineError(f"{what}: {' '.join(done.stderr.split())}")
    return _upper(done.stdout, what)


def _upper(options: str, what: str) -> Path:
    found = re.search(r"(?:^|[\s,])upperdir=([^,\n]+)", options)
    if found is None:
        raise EngineError(f"{what}: no upper directory among what it is mounted with")
    return Path(found[1])
