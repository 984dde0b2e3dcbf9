"""What an edit of a container's spec adds, gathered: and seen to it that it is there.

Both ways to edit one come here: our runtime's (prepare.py) and the hook's of an engine that runs another one
(inject_guest.py).
"""

import os

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.criu import config as criu_config_file
from migrrdma_runtime.shim import spec
from migrrdma_runtime.wire import runtime_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.base.config import Config


def gather(
    config: "Config", container_id: str, original: spec.Spec, *, criu_config: str, cgroup: "str | None"
) -> spec.Additions:
    """What ``original``, the spec of that container, is given.

    ``criu_config`` is where its CRIU configuration is written to; "": in the folder that is kept of the container as
    long as there is one. ``cgroup`` is what CRIU must be told of at a restore.
    """
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
    record_dir = f"{config.run_dir}/{paths.CONTAINERS_DIR}/{container_id}"
    socket_dir = _make_socket_dir(config.run_dir, record_dir)
    return spec.Additions(
        guest_dir=config.guest_dir,
        version=version,
        socket_dir=socket_dir,
        hooks_dir=config.hooks_dir,
        record_dir=record_dir,
        criu_config=criu_config_file.write(
            criu_config or f"{record_dir}/{spec.CRIU_CONFIG_NAME}",
            spec.user_criu_config(original),
            plugin=config.criu_plugin,
            cgroup=cgroup,
        ),
    )


def _make_socket_dir(run_dir: str, record_dir: str) -> str:
    """Make the directory that is mounted into this container alone; the agent's socket comes to be in it.

    An agent that does not run finds it when it is started.
    """
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
