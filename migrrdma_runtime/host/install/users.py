"""Who still needs the runtime: uninstalling it under a running container would leave nobody to stop it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import DockerError, InstallError
from migrrdma_runtime.engine.docker import Docker
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.host.install.docker_config import NAME
from migrrdma_runtime.host.machine import Host

_TASKS = (
    "run/containerd/io.containerd.runtime.v2.task",
    "run/docker/containerd/daemon/io.containerd.runtime.v2.task",  # the containerd that dockerd starts itself
)


def running(host: Host, docker: Docker | None) -> list[str]:
    """The ids of the containers that run under our launcher, Docker's or not.

    containerd's shim notes the path of the runtime in each task's folder and calls it again to exec, kill and
    delete. That note is there whether or not dockerd answers; Docker knows of a containerd that is elsewhere.
    """
    notes = [note for tasks in _TASKS for note in sorted((host.root / tasks).glob("*/*/runtime"))]
    noted = [note.parent.name for note in notes if _text(note) == paths.RUNTIME]
    known = docker.containers() if docker is not None else []
    return list(dict.fromkeys([*noted, *(one.id for one in known if one.runtime == NAME and one.running)]))


def migrations(host: Host) -> tuple[list[str], list[str]]:
    """What the agent here is in the middle of, and the checkpoints that wait for a person, and need it for that.

    They wait to be restored, or, when another host has adopted one or this one began to, for what is to become of it.
    """
    from migrrdma_runtime.agent.peers import agent_config
    from migrrdma_runtime.agent.roles import store
    from migrrdma_runtime.agent.roles.states import State

    found = tomllib.loads(host.read(paths.AGENT_CONFIG_FILE) or "")
    directory = str(found.get("state_dir", paths.AGENT_STATE_DIR))
    records = store.unfinished(host.path(f"{directory}/{agent_config.DATABASE}"))
    waits = (State.PARKED, State.SUPERSEDED, State.ADOPTING)
    waiting = [one.id for one in records if one.state in waits]
    busy = [f"{one.id} ({one.role.value}, {one.state.value})" for one in records if one.id not in waiting]
    return busy, waiting


def named(docker: Docker | None, ids: list[str]) -> list[str]:
    """The containers as their owner calls them, as far as Docker knows them."""
    return [_name(docker, one) for one in ids]


def stopped(docker: Docker | None, podmans: Sequence[Container] = ()) -> list[str]:
    """The names of the stopped containers that were made for our runtime: they will not start without it.

    ``podmans`` are those of Podman's that were.
    """
    dockers = [one for one in docker.containers() if one.runtime == NAME] if docker is not None else []
    return sorted(one.name for one in (*dockers, *podmans) if not one.running)


def _text(note: Path) -> str:
    try:
        return note.read_text(encoding="utf-8").strip()
    except OSError:  # the container ended meanwhile
        return ""


def _name(docker: Docker | None, container_id: str) -> str:
    if docker is None:
        return container_id[:12]
    try:
        return docker.container(container_id).name
    except DockerError:  # somebody else's container, containerd's own for instance
        return container_id[:12]


def require_no_container_runs(host: Host, docker: Docker | None, podmans: Sequence[Container] = ()) -> None:
    """Refuse, by `InstallError`, while containers run under the runtime; ``podmans`` are those of Podman's for it."""
    found = named(docker, running(host, docker)) + [one.name for one in podmans if one.running]
    if found:
        raise InstallError(
            f"containers run under the runtime and cannot be stopped without it: {', '.join(found)}; "
            "stop them first, or use --force"
        )


def require_no_migration(under_way: list[str]) -> None:
    """Refuse, by `InstallError`, while there are such migrations, which :func:`migrations` has found."""
    if under_way:
        raise InstallError(
            f"migrations are under way, and need this host's agent: {', '.join(under_way)}; "
            "wait for their end (migrrdma status), or use --force"
        )
