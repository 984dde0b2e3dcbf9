"""The plan of ``migrrdma uninstall``: what is ours on this host, in an order that is safe to remove it in.

Docker's configuration comes first, so that Docker never names a runtime that is gone.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from pathlib import PurePath

from migrrdma_runtime import layout
from migrrdma_runtime.host import Host
from migrrdma_runtime.installation.docker_config import DockerConfig
from migrrdma_runtime.installation.record import FILE, Record, digest, load, save
from migrrdma_runtime.installation.step import Step


def plan(host: Host, docker: DockerConfig, *, purge: bool) -> list[Step]:
    """The steps; nothing is changed until they are performed."""
    record = load(host.path(FILE))
    ours = record.files or _assumed(host)
    doomed = [name for name in ours if purge or not _is_changed_config(host, name, record)]
    if purge:
        doomed += [name for name in layout.CONFIG_FILES if name not in doomed]
    steps = [
        docker.plan_remove(record.docker),
        *(_remove(host, name) for name in doomed if host.path(name).exists()),
        *(Step(name, note="it was changed; --purge removes it") for name in ours if name not in doomed),
        *_guest(host, purge=purge),
    ]
    kept = Record({name: ours[name] for name in ours if name not in doomed}, record.directories)
    if host.path(FILE).exists():
        steps.append(
            Step(FILE, partial(_forget, host, kept), "removal, with the directories made for it all")
        )
    return steps


def docker_config_name(host: Host) -> str | None:
    """The ``daemon.json`` that the installation edited."""
    docker = load(host.path(FILE)).docker
    return docker.config if docker is not None else None


def _assumed(host: Host) -> dict[str, str]:
    """What must be ours when the record is lost: the launcher and the hooks, by their names."""
    hooks = host.path(layout.HOOKS_DIR)
    parts = (layout.RUNTIME, layout.CRIU_PLUGIN, layout.AGENT_UNIT)
    names = [*parts, *(f"{layout.HOOKS_DIR}/{hook.name}" for hook in sorted(hooks.glob("*")))]
    return {name: "" for name in names if host.path(name).exists()}


def _is_changed_config(host: Host, name: str, record: Record) -> bool:
    path = host.path(name)
    return (
        name in layout.CONFIG_FILES and path.exists() and digest(path.read_bytes()) != record.files.get(name)
    )


def _remove(host: Host, name: str) -> Step:
    return Step(name, partial(host.path(name).unlink, missing_ok=True), "removal")


def _guest(host: Host, *, purge: bool) -> list[Step]:
    """Unlinking a library is harmless to the processes that map it, but their checkpoints need it back."""
    directory = host.path(layout.GUEST_DIR)
    if not directory.exists():
        return []
    if not purge:
        return [Step(layout.GUEST_DIR, note="checkpoints may need its libraries; --purge removes them")]
    return [Step(layout.GUEST_DIR, partial(shutil.rmtree, directory), "removal")]


def _forget(host: Host, kept: Record) -> None:
    """Drop the record and the directories we made; what is kept in them stays on record for a later purge."""
    path = host.path(FILE)
    path.unlink()
    ours = [layout.GUEST_DIR, *kept.files]
    remaining = []
    for name in reversed(kept.directories):
        with suppress(OSError):  # not empty: what was kept, or somebody else's things
            host.path(name).rmdir()
        if host.path(name).exists() and any(PurePath(one).is_relative_to(name) for one in ours):
            remaining.append(name)
    if kept.files or remaining:
        save(path, Record(kept.files, tuple(reversed(remaining))))
