"""A hook of stage *precreate*: the guest library for the RDMA containers of an engine that runs another runtime.

Podman hands over, on stdin, the spec that it is about to write for the low-level runtime, and writes what it gets on
stdout. The edit is the same as the runtime's own (shim/spec.py). Every container of the engine's passes through here,
as no condition in a hook's description tells those with an RDMA device; of all others the very bytes go back.

It runs with an empty environment. What it prints on stderr Podman throws away, and says only that the hook has failed;
so the reason goes to the system's log as well.
"""

import os
import sys

from migrrdma_runtime.base.config import load as load_config
from migrrdma_runtime.base.errors import ConfigError, MigrRDMAError, SpecError
from migrrdma_runtime.shim import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.spec import Spec

_NAME = "migrrdma-inject-guest"
"""In the system's log, and before each line of ours."""

_SOURCE = "the spec on stdin"


def main() -> None:
    """Serve one container. A spec that must be edited and cannot be is refused: exit code 1, and one line."""
    try:
        data = sys.stdin.buffer.read()
        result = filtered(data, os.getcwd())
        sys.stdout.buffer.write(result)
        sys.stdout.buffer.flush()
    except MigrRDMAError as error:
        _say(str(error))
        sys.exit(1)
    except OSError as error:
        _say(f"cannot hand the spec back: {error.strerror}")
        os._exit(1)  # what is left to be written cannot be, and Python would try it again at its end


def filtered(data: bytes, folder: str) -> bytes:
    """The spec as the container is to be made; ``folder`` is where the engine runs its hooks."""
    if bundle.are_plain([data]):
        return data
    value, unsafe = bundle.parse(data, _SOURCE)
    if not isinstance(value, dict):
        return data  # for the engine to refuse
    try:
        return _edited(value, unsafe, data, folder)
    except SpecError as error:
        raise error if str(error).startswith(_SOURCE) else SpecError(f"{_SOURCE}: {error}") from error


def _edited(value: "Spec", unsafe: SpecError | None, data: bytes, folder: str) -> bytes:
    from migrrdma_runtime.shim import spec

    wanted = spec.holds_rdma(value)
    if not wanted and not spec.is_edited(value):
        return data
    config, broken = load_config()
    if wanted and not _may_record(config):
        # A user's own engine, whose containers the agent cannot look after: they run as they would without us.
        _say(
            f"a container with an RDMA device is left as it is: {config.run_dir} is not this user's to write to"
        )
        return data
    if unsafe:
        raise unsafe
    bundle.require_editable(len(data))
    if wanted:
        _add_guest(value, config, broken, folder)
    else:
        spec.strip(value)  # edited before the user said org.migrrdma.enable=false
    return bundle.as_text(value, _SOURCE)


def _add_guest(value: "Spec", config: "Config", broken: ConfigError | None, folder: str) -> None:
    from migrrdma_runtime.shim import additions, mount_points, spec
    from migrrdma_runtime.shim.held import require_not_held

    if broken:
        raise broken
    container_id = container_of(value, folder)
    require_not_held(container_id)
    spec.edit(value, additions.gather(config, container_id, value, criu_config="", cgroup=None))
    mount_points.provide(value, folder)


def container_of(value: "Spec", folder: str) -> str:
    """The id of the container that a spec of Podman's is for.

    Nothing in a spec says it as such. It is in the name of the cgroup, which ``--cgroups=disabled`` takes away; in the
    bundle's path, and Podman runs its hooks there from version 4.4 on; and in that of a file which every container has
    mounted, unless its user puts something else there.
    """
    import re

    linux = value.get("linux")
    places = [linux.get("cgroupsPath") if isinstance(linux, dict) else None, folder]
    mounts = value.get("mounts")
    for mount in mounts if isinstance(mounts, list) else ():
        if isinstance(mount, dict) and str(mount.get("destination")).endswith("/.containerenv"):
            places.append(mount.get("source"))
    marks = ("libpod[:-](?:payload-)?ID$", "/[a-z]+-containers/ID/userdata$", "/ID/userdata/[.]containerenv$")
    for place, mark in zip(places, marks, strict=False):
        found = re.search(mark.replace("ID", "([0-9a-f]{64})"), str(place))
        if found:
            return found[1]
    raise SpecError("it does not say which container it is for: this hook knows the specs of Podman")


def _may_record(config: "Config") -> bool:
    """Whether we are the root of this host: who else runs containers has no agent."""
    folder = config.run_dir
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return os.access(folder, os.W_OK)


def _say(text: str) -> None:
    import syslog

    print(f"{_NAME}: {text}", file=sys.stderr)
    syslog.openlog(_NAME)
    syslog.syslog(syslog.LOG_ERR, text)
