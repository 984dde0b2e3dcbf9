"""RDMA containers with an address of their own, and moving one by the commands a user types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .containers import Container, carry
from .plan import container_image
from .shell import Shell

CHECKPOINTS = "/root/checkpoints"

_MIGRATE_S = 600
"""Beside a load of its own, an emulated machine restores a gigabyte for minutes."""

_NETWORK = (
    "docker network inspect data >/dev/null 2>&1 || "
    "docker network create -d macvlan --subnet 10.78.0.0/24 --ip-range 10.78.0.128/25 -o parent=rd0 data"
)


def join_data_network(node: Shell) -> None:
    """Give the node's Docker the network ``data``, on which containers have addresses of their own."""
    node.sh(_NETWORK)


def container(
    node: Shell,
    name: str,
    command: Sequence[str],
    address: str,
    options: Sequence[str] = (),
    image: str = container_image("trixie"),
) -> Container:
    """A container on the data network, so that its address and TCP connections can move with it.

    The RDMA device is the host's: in the shared network namespace mode every container sees it.
    """
    join_data_network(node)
    return Container(
        node,
        name,
        tuple(command),
        (
            "--network=data",
            f"--ip={address}",
            *node.rdma_options,
            "-t",  # line by line: perftest's output would stay in its buffer
            *options,
        ),
        image,
    )


def move(
    source: Container, destination: Shell, checkpoint: str = "move", *, staged: bool = False
) -> Container:
    """Move a container by docker's commands; returns it as it runs on ``destination``.

    ``staged``: by a plain ``docker start``, which goes on from what was imported.
    """
    for node in (source.shell, destination):
        node.run("rm", "-rf", CHECKPOINTS)
    source.checkpoint(checkpoint, "--checkpoint-dir", CHECKPOINTS)
    moved = restore(source, destination, checkpoint, staged=staged)
    source.remove()
    return moved


def migrate(source: Container, destination: Shell, *options: str) -> Container:
    """Move a container live, by ``migrrdma migrate``; returns it as it runs on ``destination``."""
    join_data_network(destination)
    source.shell.run(
        "migrrdma", "migrate", source.name, destination.node.data_address, "--tcp=keep", *options,
        timeout=_MIGRATE_S,
    )  # fmt: skip
    return source.on(destination)


def restore(
    source: Container, destination: Shell, checkpoint: str = "move", *, staged: bool = False
) -> Container:
    """Carry a checkpoint that lies in `CHECKPOINTS` to ``destination`` and restore it there; the source stays."""
    carry(CHECKPOINTS, checkpoint, source.shell, destination)
    return restore_here(source.on(destination), checkpoint, staged=staged)


def restore_here(container: Container, checkpoint: str, *, staged: bool = False) -> Container:
    """Restore a container from a checkpoint that lies in its node's `CHECKPOINTS`."""
    container.remove()
    join_data_network(container.shell)
    container.create()
    container.shell.run("migrrdma", "checkpoint", "import", f"{CHECKPOINTS}/{checkpoint}", container.name)
    if staged:
        container.start()
    else:
        container.restore(checkpoint)
    return container


def status(node: Shell) -> dict[str, Any]:
    """``migrrdma status --json``."""
    found: dict[str, Any] = json.loads(node.run("migrrdma", "status", "--json").stdout)
    return found
