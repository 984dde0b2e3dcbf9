"""``create``, ``run`` and ``restore``: edit the bundle of a container that holds an RDMA device.

That of any other is left alone, but for one line of CRIU's configuration when it is restored (cgroup.py).
"""

import os

from migrrdma_runtime.base.errors import ConfigError, SpecError
from migrrdma_runtime.shim import bundle, lowlevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Invocation
    from migrrdma_runtime.shim.spec import Additions, Spec

_MAX_EDITABLE = 16 << 20
"""A spec is read whole to be edited, and takes ten times its size in memory; real ones have 20 to 100 KB."""


def prepare_bundle(invocation: "Invocation", config: "Config", broken: ConfigError | None) -> None:
    """Edit the bundle if its container holds an RDMA device; otherwise leave it alone."""
    if not _is_valid_id(invocation.container_id):
        return  # the low-level runtime refuses it, in its own words
    if broken:
        from migrrdma_runtime.shim import runtime_log

        runtime_log.warn(invocation, f"{broken}; containers without an RDMA device are not affected")
    path = spec_path(invocation)
    restores = invocation.command == "restore"
    if bundle.is_plain(path):
        if restores:
            _name_cgroup(invocation, config, path)
        return

    value, unsafe = bundle.read(path)
    if not isinstance(value, dict):
        return  # not an object: for the low-level runtime to refuse
    from migrrdma_runtime.shim import mount_points, spec

    try:
        wanted, edited = spec.holds_rdma(value), spec.is_edited(value)
        if not wanted and not edited:
            if restores:
                _name_cgroup(invocation, config, path)
            return
        if broken and wanted:
            raise broken
        if unsafe:
            raise unsafe
        if os.stat(path).st_size > _MAX_EDITABLE:
            raise SpecError(f"larger than {_MAX_EDITABLE >> 20} MiB, too large to be edited")
        if wanted and not restores:
            from migrrdma_runtime.shim.held import require_not_held

            require_not_held(invocation.container_id)
        if wanted:
            spec.edit(value, _additions(invocation, config, path, value))
            mount_points.provide(value, invocation.value("b", "bundle") or ".")
        else:
            spec.strip(value)  # edited before the user said org.migrrdma.enable=false
    except SpecError as error:
        raise error if str(error).startswith(path) else SpecError(f"{path}: {error}") from error
    bundle.replace(path, value)


def _name_cgroup(invocation: "Invocation", config: "Config", path: str) -> None:
    """Have CRIU restore a container without RDMA into its own cgroup, and hold it as long as it is moved.

    A spec we cannot rewrite stays as it is.
    """
    from migrrdma_runtime.criu import config as criu_config
    from migrrdma_runtime.shim import spec

    try:
        value, unsafe = bundle.read(path)
    except SpecError:
        return  # for the low-level runtime to refuse
    if unsafe or not isinstance(value, dict) or os.stat(path).st_size > _MAX_EDITABLE:
        return
    cgroup = _cgroup(value, invocation, config)
    plugin = config.criu_plugin if is_moved(invocation) else None
    if cgroup or plugin:
        written = criu_config.write(
            _criu_config_path(path), spec.user_criu_config(value), plugin=plugin, cgroup=cgroup
        )
        spec.set_criu_config(value, written)
        bundle.replace(path, value)


def is_moved(invocation: "Invocation") -> bool:
    """Whether it is restored from a move of the mover's: then it is held until that is committed, also without RDMA."""
    from migrrdma_runtime.base import paths

    images = invocation.value("image-path") or "checkpoint"
    return os.path.exists(os.path.join(images, paths.MANIFEST))


def _cgroup(value: "Spec", invocation: "Invocation", config: "Config") -> str | None:
    """The cgroup that CRIU must be told of at a restore; crun tells it itself."""
    from migrrdma_runtime.criu import cgroup

    if (
        invocation.command != "restore"
        or lowlevel.flavour(config.runtime) == "crun"
        or not cgroup.is_unified()
    ):
        return None
    return cgroup.path_of(value, invocation.container_id)


def spec_path(invocation: "Invocation") -> str:
    """The spec that the low-level runtime will read (``--config`` is crun's)."""
    folder = invocation.value("b", "bundle") or "."
    name = invocation.value("f", "config") or "config.json"
    path = os.path.join(os.getcwd(), folder, name)
    # Behind a symbolic link, `..` is not what the path without the two would be.
    return path if ".." in path.split("/") else os.path.normpath(path)


def _criu_config_path(path: str) -> str:
    """Where our CRIU configuration goes: beside the spec that names it."""
    from migrrdma_runtime.shim import spec

    return os.path.join(os.path.dirname(path), spec.CRIU_CONFIG_NAME)


def _additions(invocation: "Invocation", config: "Config", path: str, original: "Spec") -> "Additions":
    """Gather what the edit adds, and see to it that it is there."""
    from migrrdma_runtime.base import paths
    from migrrdma_runtime.criu import config as criu_config
    from migrrdma_runtime.shim import spec

    link = f"{config.guest_dir}/current"
    try:
        version = os.path.basename(os.readlink(link))
    except OSError as error:
        raise SpecError(
            f"the container holds an RDMA device, but no guest library is installed "
            f"({link}: {error.strerror}): run `migrrdma install`"
        ) from error
    needed = [f"{config.guest_dir}/{version}/{paths.GUEST_LIBRARY}"]
    needed += [f"{config.hooks_dir}/{script}" for _, script in spec.HOOKS]
    needed.append(config.criu_plugin)
    for file in needed:
        if not os.path.isfile(file):
            raise SpecError(
                f"the container holds an RDMA device, but {file} is missing: run `migrrdma install`"
            )
    record_dir = f"{config.run_dir}/{paths.CONTAINERS_DIR}/{invocation.container_id}"
    socket_dir = _make_socket_dir(config.run_dir, record_dir)
    return spec.Additions(
        guest_dir=config.guest_dir,
        version=version,
        socket_dir=socket_dir,
        hooks_dir=config.hooks_dir,
        record_dir=record_dir,
        criu_config=criu_config.write(
            _criu_config_path(path),
            spec.user_criu_config(original),
            plugin=config.criu_plugin,
            cgroup=_cgroup(original, invocation, config),
        ),
    )


def _make_socket_dir(run_dir: str, record_dir: str) -> str:
    """Make the directory that is mounted into this container alone; the agent's socket comes to be in it.

    An agent that does not run finds it when it is started.
    """
    from migrrdma_runtime.base import paths
    from migrrdma_runtime.wire import runtime_client

    folder = f"{record_dir}/{paths.GUEST_SOCKET_DIR}"
    try:
        os.makedirs(folder, exist_ok=True)
        for parent in (run_dir, os.path.dirname(record_dir), record_dir):
            os.chmod(parent, paths.RUN_DIR_MODE)
        os.chmod(folder, paths.GUEST_SOCKET_DIR_MODE)
    except OSError as error:
        raise SpecError(f"cannot make {folder}: {error.strerror}") from error
    runtime_client.announce(run_dir, os.path.basename(record_dir))
    return folder


def _is_valid_id(container_id: str) -> bool:
    """Whether runc would take this ID, which comes from outside and becomes part of a path."""
    return container_id not in (".", "..") and all(
        character.isascii() and (character.isalnum() or character in "_+-.") for character in container_id
    )
