"""What a checkpoint or a restore must know of its container, wherever the low-level runtime keeps it."""

from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.criu import config as criu_config
from migrrdma_runtime.shim import bundle, lowlevel, spec
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
    ) -> None:
        self.has_own_network = has_own_network
        self.criu_config = criu_config
        self.has_guest = has_guest
        """Whether its processes load the guest library, and so may hold RDMA connections."""


def look_up(invocation: "Invocation", runtime: str) -> Facts:
    """The facts about the container of a invocation: from its bundle if it is yet to start, else from its state."""
    if invocation.command == "restore":
        candidates = [create.spec_path(invocation)]
    else:
        root = invocation.globals.get("root") or lowlevel.default_root(runtime)
        candidates = [f"{root}/{invocation.container_id}/{name}" for name in ("state.json", "config.json")]
    for path in candidates:
        try:
            found, _ = bundle.read(path)
            if isinstance(found, dict):
                return _from_runc(found["config"]) if "config" in found else _from_spec(found)
        except SpecError:
            continue  # the other runtime's file name; or there is nothing, which is not for us to say
    return Facts()


def _from_spec(found: spec.Spec) -> Facts:
    """Crun keeps the spec itself."""
    annotations = found.get("annotations") or {}
    return Facts(
        has_own_network=spec.has_own_network(found),
        criu_config=annotations.get("org.criu.config", criu_config.RUNC_DEFAULT),
        has_guest=spec.GUEST in annotations,
    )


def _from_runc(config: spec.Spec) -> Facts:
    """Runc's ``state.json`` has the same in libcontainer's words, annotations as ``"NAME=VALUE"``."""
    labels = dict(label.partition("=")[::2] for label in config.get("labels") or ())
    return Facts(
        has_own_network=any(entry.get("type") == "NEWNET" for entry in config.get("namespaces") or ()),
        criu_config=labels.get("org.criu.config", criu_config.RUNC_DEFAULT),
        has_guest=spec.GUEST in labels,
    )
