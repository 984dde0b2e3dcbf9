"""A dump's outcome as a file: how the agent learns that a dump has succeeded when it could not be told.

The OCI runtime writes it once CRIU's images are on the disk, to the path that the agent has named; the agent takes it
away when its own record says the same. Nothing heavy is imported here.
"""

import contextlib
import json
import os

from migrrdma_runtime.base import fault_points

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_BYTES = 1 << 20


def write(path: str, steps: "list[dict[str, Any]]") -> None:
    """Say durably that the dump succeeded; ``steps`` are the runtime's timings. `OSError`: it could not be said."""
    draft = f"{path}.{os.getpid()}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"succeeded": True, "steps": steps}, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    _sync(os.path.dirname(path))


def read(path: str) -> "list[dict[str, Any]] | None":
    """The timings of a dump that succeeded; None: nobody has said that it did."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return None
    steps: list[dict[str, Any]] = found["steps"]
    return steps


def remove(path: str) -> None:
    """Take it away: the agent's record says the same."""
    with contextlib.suppress(OSError), fault_points.around(fault_points.Action.FORGET_OUTCOME):
        os.unlink(path)


def sync_tree(directory: str) -> None:
    """Have everything in a directory on the disk; `OSError`: it may not be there."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                _sync(path)
        _sync(folder)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
