"""``create``, ``run`` and ``restore``: edit the bundle of a container that holds an RDMA device.

That of any other is left alone, but for one line of CRIU's configuration when it is restored (cgroup.py).
"""

import os

from migrrdma_runtime.base.errors import ConfigError, SpecError
from migrrdma_runtime.shim import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Call
    from migrrdma_runtime.shim.spec import Additions, Spec

_MAX_EDITABLE = 16 << 20
"""A spec is read whole to be edited, and takes ten times its size in memory; real ones have 20 to 100 KB."""


def prepare(call: "Call", settings: "Config", broken: ConfigError | None) -> None:
    """Edit the bundle if its container holds an RDMA device; otherwise leave it alone."""
    if not _is_valid_id(call.container_id):
        return  # the low-level runtime refuses it, in its own words
    if broken:
        from migrrdma_runtime.shim import runtime_log

        runtime_log.warn(call, f"{broken}; containers without an RDMA device are not affected")
    path = spec_path(call)
    restores = call.command == "restore"
    if bundle.is_plain(path):
        if restores:
            _name_cgroup(call, settings, path)
        return

    value, unsafe = bundle.read(path)
    if not isinstance(value, dict):
        return  # not an object: for the low-level runtime to refuse
    from migrrdma_runtime.shim import spec

    try:
        wanted, edited = spec.holds_rdma(value), spec.is_edited(value)
        if not wanted and not edited:
            if restores:
                _name_cgroup(call, settings, path)
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


def _name_cgroup(call: "Call", settings: "Config", path: str) -> None:
    """Have CRIU restore a container without RDMA into its own cgroup; a spec we cannot rewrite stays as it is."""
    from migrrdma_runtime.criu import config as criu_config
    from migrrdma_runtime.shim import spec

    try:
        value, unsafe = bundle.read(path)
    except SpecError:
        return  # for the low-level runtime to refuse
    if unsafe or not isinstance(value, dict) or os.stat(path).st_size > _MAX_EDITABLE:
        return
    cgroup = _cgroup(value, call, settings)
    if cgroup:
        spec.set_criu_config(value, criu_config.write(path, value, plugin=None, cgroup=cgroup))
        bundle.replace(path, value)


def _cgroup(value: "Spec", call: "Call", settings: "Config") -> str | None:
    """The cgroup that CRIU must be told of at a restore; crun tells it itself."""
    from migrrdma_runtime.criu import cgroup

    if call.command != "restore" or os.path.basename(settings.runtime) == "crun" or not cgroup.is_unified():
        return None
    return cgroup.path_of(value, call.container_id)


def spec_path(call: "Call") -> str:
    """The spec that the low-level runtime will read (``--config`` is crun's)."""
    folder = call.value("b", "bundle") or "."
    return os.path.abspath(os.path.join(folder, call.value("f", "config") or "config.json"))


def _additions(call: "Call", settings: "Config", path: str, original: "Spec") -> "Additions":
    """Gather what the edit adds, and see to it that it is there."""
    from migrrdma_runtime.base import paths
    from migrrdma_runtime.criu import config as criu_config
    from migrrdma_runtime.shim import spec

    link = f"{settings.guest_dir}/current"
    try:
        version = os.path.basename(os.readlink(link))
    except OSError as error:
        raise SpecError(
            f"the container holds an RDMA device, but no guest library is installed "
            f"({link}: {error.strerror}): run `migrrdma install`"
        ) from error
    needed = [f"{settings.guest_dir}/{version}/{paths.GUEST_LIBRARY}"]
    needed += [f"{settings.hooks_dir}/{script}" for _, script in spec.HOOKS]
    needed.append(settings.criu_plugin)
    for file in needed:
        if not os.path.isfile(file):
            raise SpecError(
                f"the container holds an RDMA device, but {file} is missing: run `migrrdma install`"
            )
    socket_dir = f"{settings.run_dir}/{paths.GUEST_SOCKET_DIR}"
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
        criu_config=criu_config.write(
            path, original, plugin=settings.criu_plugin, cgroup=_cgroup(original, call, settings)
        ),
    )


def _is_valid_id(container_id: str) -> bool:
    """Whether runc would take this ID, which comes from outside and becomes part of a path."""
    return container_id not in (".", "..") and all(
        character.isascii() and (character.isalnum() or character in "_+-.") for character in container_id
    )
