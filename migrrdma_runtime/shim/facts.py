"""What a checkpoint or a restore must know of its container, wherever the low-level runtime keeps it."""

from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.criu import config as criu_config
from migrrdma_runtime.shim import auto_remove, bundle, lowlevel, spec
from migrrdma_runtime.shim import prepare as create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.shim.argv import Invocation


class Facts:
    """The facts; those of a container that cannot be looked up are of one that needs nothing special."""

    def __init__(
        self,
        *,
        has_own_network: bool = False,
        criu_config: str = criu_config.RUNC_DEFAULT,
        has_guest: bool = False,
        docker_folder: str = "",
    ) -> None:
        self.has_own_network = has_own_network
        self.criu_config = criu_config
        self.has_guest = has_guest
        """Whether its processes load the guest library, and so may hold RDMA connections."""
        self.docker_folder = docker_folder
        """Docker's own folder of it; empty when it is another engine's container."""


def look_up(invocation: "Invocation", runtime: str) -> Facts:
    """The facts about the container of a invocation: from its bundle if it is yet to start, else from its state."""
    if invocation.command == "restore":
        candidates = [create.spec_path(invocation)]
    else:
        folder = lowlevel.folder(invocation, runtime)
        candidates = [f"{folder}/{name}" for name in ("state.json", "config.json")]
    for path in candidates:
        try:
            found, _ = bundle.read(path)
            if isinstance(found, dict):
                return (
                    _from_runc(found["config"], invocation.container_id)
                    if "config" in found
                    else _from_spec(found, invocation.container_id)
                )
        except SpecError:
            continue  # the other runtime's file name; or there is nothing, which is not for us to say
    return Facts()


def _from_spec(found: spec.Spec, container_id: str) -> Facts:
    """Crun keeps the spec itself."""
    annotations = found.get("annotations") or {}
    return Facts(
        has_own_network=spec.has_own_network(found),
        criu_config=annotations.get("org.criu.config", criu_config.RUNC_DEFAULT),
        has_guest=spec.GUEST in annotations,
        docker_folder=auto_remove.docker_folder(found.get("mounts") or [], container_id),
    )


def _from_runc(config: spec.Spec, container_id: str) -> Facts:
    """Runc's ``state.json`` has the same in libcontainer's words, annotations as ``"NAME=VALUE"``."""
    labels = dict(label.partition("=")[::2] for label in config.get("labels") or ())
    return Facts(
        has_own_network=any(entry.get("type") == "NEWNET" for entry in config.get("namespaces") or ()),
        criu_config=labels.get("org.criu.config", criu_config.RUNC_DEFAULT),
        has_guest=spec.GUEST in labels,
        docker_folder=auto_remove.docker_folder(config.get("mounts") or [], container_id),
    )
