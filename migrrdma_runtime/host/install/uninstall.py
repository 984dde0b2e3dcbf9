"""The plan of ``migrrdma uninstall``: what is ours on this host, in an order that is safe to remove it in.

The engines' configurations come first, so that none ever names a runtime or a hook that is gone.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath

from migrrdma_runtime.base import paths
from migrrdma_runtime.host.install import leftovers, service
from migrrdma_runtime.host.install.docker_config import DockerConfig
from migrrdma_runtime.host.install.payload import COMPLETIONS
from migrrdma_runtime.host.install.record import FILE, Record, digest, load, save
from migrrdma_runtime.host.install.step import Step
from migrrdma_runtime.host.machine import Host


def plan(host: Host, docker: DockerConfig, *, purge: bool) -> list[Step]:
    """The steps; nothing is changed until they are performed."""
    record = load(host.path(FILE))
    ours = record.files or _assumed(host)
    doomed = [name for name in ours if purge or not _is_changed_config(host, name, record)]
    # Podman fails to start anything where a description names a hook that is not there.
    doomed.sort(key=lambda name: name not in (paths.PODMAN_CONFIG, paths.ENGINE_HOOK))
    if purge:
        doomed += [name for name in paths.CONFIG_FILES if name not in doomed]
    drafts = leftovers.plan(host, record, docker.path)
    steps = [
        *drafts,
        docker.plan_remove(record.docker),
        *service.plan_stop(host, docker.run),
        *(_remove(host, name) for name in doomed if host.path(name).exists()),
        *(Step(name, note="it was changed; --purge removes it") for name in ours if name not in doomed),
        *service.plan_forget(host, docker.run),
        *_guest(host, purge=purge),
        *_agent(host, purge=purge),
        *_staged(host, purge=purge),
        *_run_directory(host),
    ]
    kept = Record({name: ours[name] for name in ours if name not in doomed}, record.directories)
    state = host.path(FILE).parent
    if host.path(FILE).exists() and (
        any(step.apply for step in steps) or not _is_settled(host, kept, record)
    ):
        steps.append(
            Step(FILE, partial(_forget, host, kept), "removal, with the directories made for it all")
        )
    elif (
        not host.path(FILE).exists()
        and state.is_dir()
        and {host.name(one) for one in state.iterdir()} <= {one.what for one in drafts}
    ):
        steps.append(Step(host.name(state), state.rmdir, "removal: an install was interrupted there"))
    return steps


def _is_settled(host: Host, kept: Record, record: Record) -> bool:
    """Whether the record is what an earlier uninstall left, of things that are still kept."""
    directories = [host.path(name) for name in record.directories]
    return kept == record and all(one.is_dir() and any(one.iterdir()) for one in directories)


def docker_config_name(host: Host) -> str | None:
    """The ``daemon.json`` that the installation edited."""
    docker = load(host.path(FILE)).docker
    return docker.config if docker is not None else None


def _assumed(host: Host) -> dict[str, str]:
    """What must be ours when the record is lost: everything but the configuration, by its name."""
    hooks = host.path(paths.HOOKS_DIR)
    engines = (paths.PODMAN_CONFIG, paths.ENGINE_HOOK)
    parts = (
        *engines,
        paths.RUNTIME,
        paths.RUNTIME_SCRIPT,
        paths.CRIU_PLUGIN,
        paths.AGENT_UNIT,
        paths.MOVER_UNIT,
    )
    names = [
        *parts,
        *COMPLETIONS.values(),
        *(f"{paths.HOOKS_DIR}/{hook.name}" for hook in sorted(hooks.glob("*"))),
    ]
    return {name: "" for name in names if host.path(name).exists()}


def _is_changed_config(host: Host, name: str, record: Record) -> bool:
    path = host.path(name)
    return (
        name in paths.CONFIG_FILES and path.exists() and digest(path.read_bytes()) != record.files.get(name)
    )


def _remove(host: Host, name: str) -> Step:
    return Step(name, partial(host.path(name).unlink, missing_ok=True), "removal")


def _guest(host: Host, *, purge: bool) -> list[Step]:
    """Unlinking a library is harmless to the processes that map it, but their checkpoints need it back."""
    directory = host.path(paths.GUEST_DIR)
    if not directory.exists():
        return []
    if not purge:
        return [Step(paths.GUEST_DIR, note="checkpoints may need its libraries; --purge removes them")]
    return [Step(paths.GUEST_DIR, partial(shutil.rmtree, directory), "removal")]


def _agent(host: Host, *, purge: bool) -> list[Step]:
    """What the agent, or ``migrrdma agent ca``, has made."""
    steps = []
    reasons = {
        paths.AGENT_STATE_DIR: "what the agent knows of migrations; --purge removes it",
        paths.TLS_DIR: "this host's certificate; --purge removes it",
    }
    for name, reason in reasons.items():
        if host.path(name).exists():
            remove = partial(shutil.rmtree, host.path(name))
            steps.append(Step(name, remove, "removal") if purge else Step(name, note=reason))
    if host.path(paths.CA_DIR).exists():
        steps.append(Step(paths.CA_DIR, note="the authority of the whole cluster: remove it by hand"))
    return steps


def _staged(host: Host, *, purge: bool) -> list[Step]:
    """Links to the checkpoints that containers go on from; what they lead to is Docker's."""
    directory = host.path(paths.STAGED_DIR)
    if not directory.exists():
        return []
    if any(directory.iterdir()) and not purge:
        note = "containers are to go on from these checkpoints; --purge removes it"
        return [Step(paths.STAGED_DIR, note=note)]
    return [Step(paths.STAGED_DIR, partial(shutil.rmtree, directory), "removal")]


def _run_directory(host: Host) -> list[Step]:
    """The sockets; but containers that still run have their directory mounted."""
    directory = host.path(paths.RUN_DIR)
    if not directory.exists() or not any(directory.iterdir()):
        return []
    if any(directory.glob("containers/*")):
        return [Step(paths.RUN_DIR, note="containers that run use it; it ends with the boot")]
    return [Step(paths.RUN_DIR, partial(_empty, directory), "removal")]


def _empty(directory: Path) -> None:
    """Remove everything in it, and leave it to whoever holds the lock on it."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _forget(host: Host, kept: Record) -> None:
    """Drop the record and the directories we made; what is kept in them stays on record for a later purge."""
    path = host.path(FILE)
    ours = [paths.GUEST_DIR, paths.AGENT_STATE_DIR, paths.STAGED_DIR, paths.TLS_DIR, *kept.files]
    there = [name for name in ours if host.path(name).exists()]
    around = [name for name in kept.directories if path.is_relative_to(host.path(name))]
    _remove_empty(host, [name for name in kept.directories if name not in around])
    remaining = [
        name
        for name in kept.directories
        if host.path(name).exists() and any(PurePath(one).is_relative_to(name) for one in there)
    ]
    # Last, and after the others are gone: whoever is killed before this knows the next time what is ours.
    if kept.files or remaining:
        save(path, Record(kept.files, tuple(remaining)))
    else:
        path.unlink()
        _remove_empty(host, around)


def _remove_empty(host: Host, names: list[str]) -> None:
    for name in reversed(names):
        with suppress(OSError):  # not empty: what was kept, or somebody else's things
            host.path(name).rmdir()
