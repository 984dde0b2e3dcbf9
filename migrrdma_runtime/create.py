"""``create``, ``run`` and ``restore``: edit the bundle of a container that holds an RDMA device."""

import os

from migrrdma_runtime import bundle
from migrrdma_runtime.errors import ConfigError, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.argv import Call
    from migrrdma_runtime.config import Config
    from migrrdma_runtime.spec import Additions, Spec

_MAX_EDITABLE = 16 << 20
"""A spec is read whole to be edited, and takes ten times its size in memory; real ones have 20 to 100 KB."""

RUNC_CRIU_CONFIG = "/etc/criu/runc.conf"
"""What runc has CRIU read when no annotation names another file."""

_OUR_CRIU_CONFIG = """\
# From migrrdma-runtime, for a container that holds an RDMA device:
# MPI and UCX lock files in shared memory; Docker offers no --file-locks, and the whole container is dumped.
file-locks
# Our plugin, and whatever CRIU would load without it:
"""

_CRIU_CONFIG_NAME = "migrrdma-criu.conf"
_CRIU_PLUGINS_NAME = "migrrdma-criu-plugins"


def prepare(call: "Call", settings: "Config", broken: ConfigError | None) -> None:
    """Edit the bundle if its container holds an RDMA device; otherwise leave it alone."""
    if not _is_valid_id(call.container_id):
        return  # the low-level runtime refuses it, in its own words
    if broken:
        from migrrdma_runtime import runtime_log

        runtime_log.warn(call, f"{broken}; containers without an RDMA device are not affected")
    path = spec_path(call)
    if bundle.is_plain(path):
        return

    value, unsafe = bundle.read(path)
    if not isinstance(value, dict):
        return  # not an object: for the low-level runtime to refuse
    from migrrdma_runtime import spec

    try:
        wanted, edited = spec.holds_rdma(value), spec.is_edited(value)
        if not wanted and not edited:
            return
        if broken and wanted:
            raise broken
        if unsafe:
            raise unsafe
        if os.stat(path).st_size > _MAX_EDITABLE:
            raise SpecError(f"larger than {_MAX_EDITABLE >> 20} MiB, too large to be edited")
        if wanted:
            spec.edit(value, _additions(call, settings, path, value))
        else:
            spec.strip(value)  # edited before the user said org.migrrdma.enable=false
    except SpecError as error:
        raise error if str(error).startswith(path) else SpecError(f"{path}: {error}") from error
    bundle.replace(path, value)


def spec_path(call: "Call") -> str:
    """The spec that the low-level runtime will read (``--config`` is crun's)."""
    folder = call.value("b", "bundle") or "."
    return os.path.abspath(os.path.join(folder, call.value("f", "config") or "config.json"))


def _additions(call: "Call", settings: "Config", path: str, original: "Spec") -> "Additions":
    """Gather what the edit adds, and see to it that it is there."""
    from migrrdma_runtime import layout, spec

    link = f"{settings.guest_dir}/current"
    try:
        version = os.path.basename(os.readlink(link))
    except OSError as error:
        raise SpecError(
            f"the container holds an RDMA device, but no guest library is installed "
            f"({link}: {error.strerror}): run `migrrdma install`"
        ) from error
    needed = [f"{settings.guest_dir}/{version}/{layout.GUEST_LIBRARY}"]
    needed += [f"{settings.hooks_dir}/{script}" for _, script in spec.HOOKS]
    needed.append(settings.criu_plugin)
    for file in needed:
        if not os.path.isfile(file):
            raise SpecError(
                f"the container holds an RDMA device, but {file} is missing: run `migrrdma install`"
            )
    socket_dir = f"{settings.run_dir}/{layout.GUEST_SOCKET_DIR}"
    try:
        os.makedirs(socket_dir, exist_ok=True)  # there before the agent's first start, too
    except OSError as error:
        raise SpecError(f"cannot make {socket_dir}: {error.strerror}") from error
    return spec.Additions(
        guest_dir=settings.guest_dir,
        version=version,
        socket_dir=socket_dir,
        hooks_dir=settings.hooks_dir,
        record_dir=f"{settings.run_dir}/containers/{call.container_id}",
        criu_config=_write_criu_config(path, original, settings.criu_plugin),
    )


def _write_criu_config(path: str, original: "Spec", plugin: str) -> str:
    """Write the container's CRIU configuration into its bundle: the user's, or runc's default, and ours.

    CRIU reads one such file and no more, and loads the plugins of one directory and no other. In the bundle
    both live exactly as long as the spec that names them.
    """
    from migrrdma_runtime import criu_plugins, spec

    users = spec.user_criu_config(original)
    if users is None:
        users = RUNC_CRIU_CONFIG
    target = os.path.join(os.path.dirname(path), _CRIU_CONFIG_NAME)
    try:
        content = ""
        if users:
            try:
                with open(users, encoding="utf-8", errors="surrogateescape") as file:
                    content = f"# From {users}:\n{file.read().rstrip()}\n\n"
            except FileNotFoundError:
                pass  # CRIU, too, does without
        plugins = os.path.join(os.path.dirname(path), _CRIU_PLUGINS_NAME)
        if not criu_plugins.gather(plugins, plugin, criu_plugins.inherited_directory(content)):
            raise SpecError(f"in {plugins}, {plugin} cannot be made the first of CRIU's plugins")
        with open(target, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{content}{_OUR_CRIU_CONFIG}libdir {plugins}\n")
    except OSError as error:
        raise SpecError(f"cannot write {error.filename or target}: {error.strerror}") from error
    return target


def _is_valid_id(container_id: str) -> bool:
    """Whether runc would take this ID, which comes from outside and becomes part of a path."""
    return container_id not in (".", "..") and all(
        character.isascii() and (character.isalnum() or character in "_+-.") for character in container_id
    )
