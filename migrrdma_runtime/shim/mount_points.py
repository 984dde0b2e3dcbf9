"""Mount points where the container's root may not make them, and so the low-level runtime cannot.

Ours lie below ``/dev`` (paths.py). Every container that an engine makes has a tmpfs there, which belongs to the
container's root: nothing is to be done. With ``-v /dev:/dev`` it is the host's own folder, of which the root of a user
namespace owns nothing: there we make them, as the host's root. A container with no mount on ``/dev`` at all needs
nothing of us: where the mount points could not be made, neither could ``/dev/null``, and it does not start anyway.
"""

import os
from contextlib import suppress
from typing import Any

from migrrdma_runtime.base import paths
from migrrdma_runtime.shim.spec import is_bind

_DEV = "/dev"


def provide(spec: dict[str, Any], bundle: str) -> None:
    """Make the mount points that the low-level runtime could not make; ``bundle`` is the folder of the spec.

    What we cannot make either is for the low-level runtime to refuse, in its own words.
    """
    mounts = [mount for mount in spec.get("mounts") or () if _destination(mount) == _DEV]
    if not mounts or not is_bind(mounts[-1]) or not _has_user_namespace(spec):
        return
    folder = os.path.join(bundle, str(mounts[-1].get("source", "")))
    for destination in (paths.GUEST_DIR_IN_CONTAINER, paths.GUEST_SOCKET_DIR_IN_CONTAINER):
        with suppress(OSError):
            _make(folder, destination.removeprefix(f"{_DEV}/").split("/"))


def _make(folder: str, names: list[str]) -> None:
    """Make the folders ``names``, one in the other. A link in ``folder`` could lead anywhere: none is followed."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=descriptor)
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    finally:
        os.close(descriptor)


def _destination(mount: object) -> str:
    destination = mount.get("destination") if isinstance(mount, dict) else None
    return os.path.normpath(f"/{str(destination).lstrip('/')}")


def _has_user_namespace(spec: dict[str, Any]) -> bool:
    linux = spec.get("linux")
    namespaces = linux.get("namespaces") if isinstance(linux, dict) else None
    return isinstance(namespaces, list) and any(
        isinstance(entry, dict) and entry.get("type") == "user" for entry in namespaces
    )
