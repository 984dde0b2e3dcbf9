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
    from migrrdma_runtime.shim.spec import Spec


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
        bundle.require_editable(os.stat(path).st_size)
        if wanted and not restores:
            from migrrdma_runtime.shim.held import require_not_held

            require_not_held(invocation.container_id)
        if wanted:
            from migrrdma_runtime.shim import additions

            criu_config, cgroup = _criu_config_path(path), _cgroup(value, invocation, config)
            container = invocation.container_id
            added = additions.gather(config, container, value, criu_config=criu_config, cgroup=cgroup)
            spec.edit(value, added)
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
    if unsafe or not isinstance(value, dict) or os.stat(path).st_size > bundle.MAX_EDITABLE:
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


def _is_valid_id(container_id: str) -> bool:
    """Whether runc would take this ID, which comes from outside and becomes part of a path."""
    return container_id not in (".", "..") and all(
        character.isascii() and (character.isalnum() or character in "_+-.") for character in container_id
    )
