"""Docker's ``--rm``: a container that is removed when it ends, and everything that Docker keeps of it at once.

``docker checkpoint create`` ends it, so a checkpoint in Docker's own folder of the container is gone before anybody can
restore it. dockerd makes the checkpoint's folder before it asks for the dump, which tells where it is going to be.
"""

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MADE_BY_DOCKER = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""Mounted into a container from Docker's own folder of it."""


def docker_folder(mounts: "list[dict[str, Any]]", container_id: str) -> str:
    """Docker's own folder of a container with these mounts; "" when it is another engine's."""
    for mount in mounts:
        folder = os.path.dirname(str(mount.get("source")))
        if mount.get("destination") in _MADE_BY_DOCKER and os.path.basename(folder) == container_id:
            return folder
    return ""


def takes_checkpoint_along(folder: str) -> bool:
    """Whether the container is removed at its end, and the checkpoint that is just being made with it."""
    try:
        with open(os.path.join(folder, "hostconfig.json"), "rb") as file:
            if not json.load(file).get("AutoRemove"):
                return False
        checkpoints = [
            entry.path for entry in os.scandir(os.path.join(folder, "checkpoints")) if entry.is_dir()
        ]
        return any(not os.listdir(path) for path in checkpoints)
    except (OSError, ValueError, AttributeError):
        return False
