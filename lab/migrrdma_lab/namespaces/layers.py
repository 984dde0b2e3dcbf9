"""What the nodes' file systems are made of: over the system's layers, what installing this project adds.

It is made once for each state of the project, under a name that says of which, by a node called ``golden``, and never
written to again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from .. import project
from ..bootstrap import recipe_key
from ..docker_state import DockerState
from ..plan import Places
from ..steps import run_logged, step
from .keeping import Keeper
from .system import system_layers

if TYPE_CHECKING:
    from .host import Host

Golden = Callable[[list[Path], DockerState], AbstractContextManager["Host"]]
"""Boots a node over these layers for as long as the context lasts."""


def project_layer(places: Places, state: str) -> Path:
    """Where what installing this project in ``state`` adds to a node is, or will be."""
    return places.disks / f"project-{recipe_key(state, system_layers(places)[0].name)}"


def build_project_layer(keeper: Keeper, docker: DockerState, wheel: Path, golden: Golden) -> Path:
    """Build it from the project's ``wheel``, if it is not built."""
    places = keeper.places
    layer = project_layer(places, wheel.parent.name)
    if layer.exists():
        return layer
    keeper.remove_unused("project-*")
    with tempfile.TemporaryDirectory(dir=places.disks, prefix=".project-") as work:
        draft = Path(work) / "layer"
        with (
            step("installing the project on a node of the fast rack"),
            golden(system_layers(places), docker) as host,
        ):
            project.install(host.shell, wheel)
            host.shell.run("systemctl", "stop", "migrrdma-agent")
            host.shell.sh(_FORGET)
            _copy(host.keeper.outside(host.disk.storage) / "upper", draft, places)
        draft.rename(layer)
    return layer


_FORGET = """
systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service
rm -rf /var/log/journal /var/lib/migrrdma/agent /etc/migrrdma/tls /root/project
rm -f /etc/hostname /etc/machine-id /etc/ssh/ssh_host_*
"""
"""What belongs to the one node on which the project was installed."""


def _copy(source: Path, destination: Path, places: Places) -> None:
    run_logged(["cp", "-a", source, destination], places.build / "logs" / "fast-copy.log", 120)
