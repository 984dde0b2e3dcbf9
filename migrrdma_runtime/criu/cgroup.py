"""Where the cgroup of a container is that runc makes: what CRIU must be told when it restores into another one.

A checkpoint holds the path of the cgroup that its container had, which has the container's ID in it. runc 1.1 names
the new one to CRIU, but cgroup v2 has no controller's name to name it by, and CRIU makes the old one again: the
container then runs outside its limits, and can be neither paused nor checkpointed once more.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_unified() -> bool:
    """Whether this host has cgroup v2 alone; with v1, runc and CRIU understand each other."""
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def path_of(spec: "dict[str, Any]", container_id: str) -> str | None:
    """The cgroup below the root of the hierarchy, or None where it cannot be told from the spec."""
    linux = spec.get("linux")
    path = linux.get("cgroupsPath") if isinstance(linux, dict) else None
    if not isinstance(path, str) or any(character in path for character in " \t\n\"'#"):
        return None
    if path.startswith("/"):
        return os.path.normpath(path)
    parts = path.split(":")
    if len(parts) != 3:
        return None  # relative to runc's own cgroup, or left to runc
    slice_name, prefix, name = parts
    unit = name if name.endswith(".slice") else f"{prefix}-{name or container_id}.scope"
    return f"{_expand(slice_name or 'system.slice')}/{unit}"


def _expand(slice_name: str) -> str:
    """``a-b.slice`` is below ``a.slice`` (systemd.slice(5)); ``-.slice`` is the root."""
    words = slice_name.removesuffix(".slice").split("-")
    if not any(words):
        return ""
    return "".join(f"/{'-'.join(words[: end + 1])}.slice" for end in range(len(words)))
