"""The plan of ``migrrdma install``: what is missing on this host, in the order in which it is safe to add it.

The engines' configurations come last, so that none ever names a runtime or a hook that is not all there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from migrrdma_runtime.base import files, paths
from migrrdma_runtime.host.install import leftovers, podman_config, service
from migrrdma_runtime.host.install.docker_config import DockerConfig
from migrrdma_runtime.host.install.payload import Payload, PayloadFile
from migrrdma_runtime.host.install.record import FILE, Record, digest, load, save
from migrrdma_runtime.host.install.step import Step
from migrrdma_runtime.host.machine import Host

DOCKER, PODMAN = ENGINES = ("docker", "podman")
"""The engines that can be told of us."""


def plan(host: Host, payload: Payload, docker: DockerConfig, asked: Collection[str] = ()) -> list[Step]:
    """The steps; nothing is changed until they are performed. ``asked`` are the engines to tell of us."""
    before = load(host.path(FILE))
    engines = _engines(before, asked)
    edits, docker_edit = [], before.docker
    if DOCKER in engines:
        edit, docker_edit = docker.plan_add(before.docker)
        edits.append(edit)
    for_podman = (*payload.engine_hook, podman_config.drop_in(host)) if PODMAN in engines else ()
    written = [host.path(file.path) for file in (*payload.everything, *for_podman)]
    if DOCKER in engines:
        written.append(docker.path)
    after = replace(_record(host, payload, for_podman, before), docker=docker_edit)
    after = after.with_directories(_missing(host, written))
    during = _until_replaced(before, after)
    units = [_put(host, unit) for unit in payload.units]
    return [
        *leftovers.plan(host, before, docker.path),
        *_save(host, before, during),
        *(_config(host, file, before) for file in payload.configs),
        *(_put(host, hook) for hook in payload.hooks),
        _put(host, payload.criu_plugin),
        *(_put(host, completion) for completion in payload.completions),
        *units,
        *service.plan_reload(host, docker.run, changed=any(unit.apply is not None for unit in units)),
        _put(host, payload.guest_library),
        _current(host, payload.build_id),
        *(_put(host, launcher) for launcher in payload.launchers),
        *(_put(host, file) for file in for_podman),
        *edits,
        *_save(host, during, after),
    ]


def _save(host: Host, before: Record, after: Record) -> list[Step]:
    if after == before:
        return []
    return [Step(FILE, partial(save, host.path(FILE), after), "what is ours, for migrrdma uninstall")]


def _until_replaced(before: Record, after: Record) -> Record:
    """What an upgrade replaces is known as ours by its old looks until it really has been replaced."""
    config = {name: value for name, value in before.files.items() if name in paths.CONFIG_FILES}
    moves = before.docker is not None and before.docker.path != paths.RUNTIME
    return replace(after, files={**after.files, **config}, docker=before.docker if moves else after.docker)


def _engines(before: Record, asked: Collection[str]) -> set[str]:
    """Those asked for and those that were told before; Docker, if that is none."""
    return told(before).union(asked) or {DOCKER}


def told(record: Record) -> set[str]:
    """The engines that know of us."""
    known = {DOCKER: record.docker is not None, PODMAN: paths.PODMAN_CONFIG in record.files}
    return {engine for engine, is_told in known.items() if is_told}


def _record(host: Host, payload: Payload, for_podman: tuple[PayloadFile, ...], record: Record) -> Record:
    """What will be ours of the files."""
    for file in payload.configs:
        if _may_write_config(host, file, record):
            record = record.with_file(file.path, file.content)
    parts = (payload.criu_plugin, *payload.units, *payload.launchers)
    for file in (*payload.hooks, *payload.completions, *parts, *for_podman):
        record = record.with_file(file.path, file.content)
    return record


def _missing(host: Host, written: list[Path]) -> list[str]:
    """The directories that are not there yet, of these files and of the record."""
    found = []
    for path in (host.path(FILE), *written):
        missing = [parent for parent in path.parents if host.root in parent.parents and not parent.exists()]
        if path == host.path(FILE):  # it may be there because an install was killed before it was on record
            missing = [path.parent, *(parent for parent in missing if parent != path.parent)]
        found += [host.name(parent) for parent in reversed(missing)]
    return found


def _config(host: Host, file: PayloadFile, record: Record) -> Step:
    if not _may_write_config(host, file, record):
        return Step(file.path, note="it was there before or was changed")
    path = host.path(file.path)
    if path.exists() and path.read_bytes() == file.content:  # its mode is the administrator's
        return Step(file.path)
    return Step(file.path, partial(files.replace, path, file.content, file.mode), _novelty(path))


def _may_write_config(host: Host, file: PayloadFile, record: Record) -> bool:
    """As dpkg has it: a configuration file is replaced by a new version only if nobody has touched it."""
    try:
        there = digest(host.path(file.path).read_bytes())
    except FileNotFoundError:
        return True
    return there in (record.files.get(file.path), digest(file.content))


def _put(host: Host, file: PayloadFile) -> Step:
    path = host.path(file.path)
    if is_in_place(host, file):
        return Step(file.path)
    return Step(file.path, partial(_write, path, file), _novelty(path))


def _novelty(path: Path) -> str:
    return "a new version" if path.exists() else "new"


def is_in_place(host: Host, file: PayloadFile) -> bool:
    """Whether the host has that very file already."""
    path = host.path(file.path)
    try:
        return path.read_bytes() == file.content and path.stat().st_mode & 0o777 == file.mode
    except FileNotFoundError:
        return False


def _write(path: Path, file: PayloadFile) -> None:
    files.replace(path, file.content, file.mode)
    path.chmod(file.mode)  # replacing keeps the mode of what was there


def _current(host: Host, build_id: str) -> Step:
    """``current`` moves to the new version; older ones stay, processes and checkpoints may hold them."""
    name = f"{paths.GUEST_DIR}/current"
    link = host.path(name)
    if link.is_symlink() and str(link.readlink()) == build_id:
        return Step(name)
    return Step(name, partial(files.point, link, build_id), f"points at {build_id}")
