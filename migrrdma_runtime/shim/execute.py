"""``exec``: a process that joins a container with the guest library gets the library, too.

Started with ``--process FILE``, as Docker does, the process has the environment in that file. Started
without, it has the one in the bundle's spec, edited already, unless ``--env`` sets ``LD_PRELOAD`` anew.
"""

import os

from migrrdma_runtime.shim import lowlevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.shim.argv import Invocation

_MARK = b"org.migrrdma.guest"

_FIRST_FREE = 100
"""Descriptors from here on are out of the way of ``--preserve-fds`` and ``LISTEN_FDS``, which start at 3."""


def with_guest_library(invocation: "Invocation", runtime: str) -> list[str]:
    """The arguments that have the process load the library, if its container is one of ours."""
    version = _guest_version(invocation, runtime)
    if not version:
        return invocation.args
    process = invocation.option("p", "process")
    if process and process.value:
        return invocation.with_values({process: _edited_copy(process.value, version)})
    from migrrdma_runtime.shim import spec

    preloads = [
        option
        for option in invocation.options
        if option.name in ("e", "env") and option.value.startswith("LD_PRELOAD=")
    ]
    return invocation.with_values({option: spec.preload([option.value], version)[0] for option in preloads})


def _guest_version(invocation: "Invocation", runtime: str) -> str:
    """The version of the guest library that the container has, or nothing when it is not one of ours.

    runc keeps annotations as ``"NAME=VALUE"`` in ``state.json``; crun keeps the spec. In both the version
    stands right behind the name, so there is no need to parse.
    """
    folder = lowlevel.folder(invocation, runtime)
    for name in ("state.json", "config.json"):
        try:
            with open(f"{folder}/{name}", "rb", buffering=0) as file:
                state = file.read()
        except OSError:
            continue  # the other runtime's name; or no such container, which is not for us to say
        _, mark, rest = state.partition(_MARK)
        if mark:
            return rest.lstrip(b'=":\t\n ').partition(b'"')[0].decode(errors="replace")
    return ""


def _edited_copy(path: str, version: str) -> str:
    """Edit a copy of the process file that exists only in memory.

    The file is the caller's: Docker deletes it right away, a user may want it again, perhaps for another
    container. The copy needs no disk and cannot be left behind.
    """
    import fcntl
    import json

    from migrrdma_runtime.base.errors import SpecError
    from migrrdma_runtime.shim import bundle, spec

    process, unsafe = bundle.read(path)
    if unsafe:
        raise unsafe
    env = process.get("env") if isinstance(process, dict) else None
    if not isinstance(process, dict) or not isinstance(env or [], list):
        return path  # for the low-level runtime to refuse
    if not all(isinstance(entry, str) for entry in env or []):
        raise SpecError(f"{path}: env must be a list of strings")
    process["env"] = spec.preload(env or [], version)
    copy = os.memfd_create("migrrdma-process")
    os.write(copy, json.dumps(process).encode())
    return f"/proc/self/fd/{fcntl.fcntl(copy, fcntl.F_DUPFD, _FIRST_FREE)}"
