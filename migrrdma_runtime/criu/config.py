"""The CRIU configuration of one container, in its bundle: the user's, or runc's default, and what we add.

CRIU reads one such file and no more, and loads the plugins of one directory and no other. In the bundle both live
exactly as long as the spec that names them.
"""

import os
import stat

from migrrdma_runtime.base.errors import SpecError

RUNC_DEFAULT = "/etc/criu/runc.conf"
"""What runc has CRIU read when no annotation names another file."""

_FOR_RDMA_UNLESS_THE_USER_SAYS = """\
# From migrrdma-runtime, for a container that holds an RDMA device, before what the user says, which counts:
# MPI and UCX share memory by files that they unlink at once, larger than CRIU's limit of 1 MB. It is memory like any
# other, of which CRIU dumps all that there is.
ghost-limit 1048576G

"""

_FOR_RDMA = """\
# From migrrdma-runtime, for a container that holds an RDMA device:
# MPI and UCX lock files in shared memory; Docker offers no --file-locks, and the whole container is dumped.
file-locks
# Our plugin, and whatever CRIU would load without it:
"""

_FOR_RESTORE = """\
# From migrrdma-runtime: the cgroup of the container that is restored into, not of the one that was dumped.
"""

_MOST_BYTES = 1 << 20
"""Of the user's configuration: options of CRIU's, a line each."""

_PLUGINS_NAME = "migrrdma-criu-plugins"


def write(target: str, users: str | None, *, cgroup: str | None, plugin: str | None = None) -> str:
    """Write it to ``target``, in the bundle, and return that.

    ``users`` is the file that the user named, empty for none at all, ``None`` for runc's default; ``plugin`` is ours,
    for a container with RDMA; ``cgroup`` is where it is restored into, if CRIU must be told.
    """
    folder = os.path.dirname(target)
    try:
        content = _read(RUNC_DEFAULT if users is None else users)
        ours = ""
        if plugin:
            plugins = os.path.join(folder, _PLUGINS_NAME)
            _gather(plugins, plugin, content)
            content = _FOR_RDMA_UNLESS_THE_USER_SAYS + content
            ours += f"{_FOR_RDMA}libdir {plugins}\n"
        if cgroup:
            ours += f"{_FOR_RESTORE}cgroup-root {cgroup}\n"
        with open(target, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content + ours)
    except OSError as error:
        raise SpecError(f"cannot write {error.filename or target}: {error.strerror}") from error
    return target


def _read(users: str) -> str:
    if not users:
        return ""
    try:
        # Whatever is named there: a pipe would be waited for, a device read without an end.
        descriptor = os.open(users, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""  # CRIU, too, does without
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SpecError(
                f"{users}, named as CRIU's configuration (org.criu.config), is not a regular file"
            )
        if status.st_size > _MOST_BYTES:
            raise SpecError(
                f"{users}, named as CRIU's configuration (org.criu.config), has {status.st_size} bytes; "
                f"{_MOST_BYTES} are the most"
            )
        with open(descriptor, encoding="utf-8", errors="surrogateescape", closefd=False) as file:
            return f"# From {users}:\n{file.read(_MOST_BYTES).rstrip()}\n\n"
    finally:
        os.close(descriptor)


def _gather(plugins: str, plugin: str, content: str) -> None:
    from migrrdma_runtime.criu.plugins import gather, inherited_directory

    if not gather(plugins, plugin, inherited_directory(content)):
        raise SpecError(f"in {plugins}, {plugin} cannot be made the first of CRIU's plugins")
