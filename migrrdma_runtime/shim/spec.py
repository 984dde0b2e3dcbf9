"""What we add to the spec of a container that holds an RDMA device, and how it is taken out again.

Pure functions on the parsed ``config.json``. ``edit`` first takes out what an earlier edit has added, so an
edit of an edited spec gives what an edit of the original would, also when the guest library has changed in
between. Everything the user or another tool set stays, in its order.
"""

import os
from typing import Any

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import SpecError

ENABLE = "org.migrrdma.enable"
"""``true`` or ``false`` decides where the devices would not, or not rightly."""

GUEST = "org.migrrdma.guest"
"""Marks an edited container and names the version (build-id) of the guest library that it loads."""

_USER_CRIU_CONFIG = "org.migrrdma.criu-config"
"""Keeps the user's value of ``org.criu.config`` while ours is in its place."""

_CRIU_CONFIG = "org.criu.config"

CRIU_CONFIG_NAME = "migrrdma-criu.conf"
"""The file in the bundle that is ours; by its name our value of the annotation is told from the user's."""

_DEVICES = "/dev/infiniband"
HOOKS = (("createRuntime", "record-container"), ("poststop", "forget-container"))
"""At which stage of a container's life which of the scripts in ``hooks/`` runs."""

_HOOK_NAME = "migrrdma-"
"""What ``args[0]`` of our hooks begins with; by it they are told from everybody else's."""

_OUR_MOUNTS = {
    paths.GUEST_DIR_IN_CONTAINER: "the guest library",
    # Read-only too: a socket on a read-only mount can be connected to (inode_permission() in fs/namei.c).
    paths.GUEST_SOCKET_DIR_IN_CONTAINER: "the agent's socket",
}
"""What is mounted on which folders of the container."""

Spec = dict[str, Any]


class Additions:
    """What one edit adds; the paths are the host's."""

    def __init__(
        self,
        *,
        guest_dir: str,
        version: str,
        socket_dir: str,
        hooks_dir: str,
        record_dir: str,
        criu_config: str,
    ) -> None:
        self.guest_dir = guest_dir
        self.socket_dir = socket_dir
        self.version = version
        self.hooks_dir = hooks_dir
        self.record_dir = record_dir
        self.criu_config = criu_config


def holds_rdma(spec: Spec) -> bool:
    """Whether the container is given an RDMA device, or its annotation says that it is to be treated so."""
    choice = _child(spec, "annotations", dict).get(ENABLE)
    if choice is not None:
        if choice not in ("true", "false"):
            raise SpecError(f'the annotation {ENABLE} must be "true" or "false", not {choice!r}')
        return bool(choice == "true")
    devices = _child(_child(spec, "linux", dict), "devices", list)
    if any(_below_devices(entry.get("path")) for entry in devices if isinstance(entry, dict)):
        return True
    mounts = _child(spec, "mounts", list)
    return any(_brings_devices(entry) for entry in mounts if isinstance(entry, dict))


def makes_network(spec: Spec) -> bool:
    """Whether its network is made with it: not the host's, and not one that is there already, as a pod's."""
    entries = _child(_child(spec, "linux", dict), "namespaces", list)
    return any(
        isinstance(entry, dict) and entry.get("type") == "network" and not entry.get("path")
        for entry in entries
    )


def add_first_hook(spec: Spec, path: str) -> None:
    """Have a script run when its namespaces are made, before every other hook."""
    hook = {"path": path, "args": [os.path.basename(path)], "timeout": 30}
    hooks = spec["hooks"] = dict(_child(spec, "hooks", dict))
    hooks["prestart"] = [hook, *_child(hooks, "prestart", list)]


def is_edited(spec: Spec) -> bool:
    """Whether an edit of ours is in this spec."""
    return GUEST in _child(spec, "annotations", dict)


def has_own_network(spec: Spec) -> bool:
    """Whether the container has a network namespace other than the host's."""
    namespaces = _child(_child(spec, "linux", dict), "namespaces", list)
    return any(isinstance(entry, dict) and entry.get("type") == "network" for entry in namespaces)


def user_criu_config(spec: Spec) -> str | None:
    """The CRIU configuration file that the user asked for; empty: none at all; ``None``: runc's default."""
    annotations = _child(spec, "annotations", dict)
    value = annotations.get(_CRIU_CONFIG)
    if _is_our_criu_config(value):
        value = annotations.get(_USER_CRIU_CONFIG)
    if value is not None and not isinstance(value, str):
        raise SpecError(f"the annotation {_CRIU_CONFIG} must be a string, not {value!r}")
    return value


def set_criu_config(spec: Spec, path: str) -> None:
    """Have CRIU read this file of ours, and keep the user's value."""
    original = user_criu_config(spec)
    annotations = _child(spec, "annotations", dict, create=True)
    if original is not None:
        annotations[_USER_CRIU_CONFIG] = original
    annotations[_CRIU_CONFIG] = path


def _is_our_criu_config(value: object) -> bool:
    return isinstance(value, str) and value.endswith(f"/{CRIU_CONFIG_NAME}")


def edit(spec: Spec, additions: Additions) -> None:
    """Add what a container with an RDMA device needs."""
    strip(spec)
    _drop_hooks(spec)  # of a spec that somebody has copied without the annotation: they would be there twice
    user_criu_config(spec)  # refused before anything is added
    for entry in _child(spec, "mounts", list):
        destination = entry.get("destination") if isinstance(entry, dict) else None
        # Also above and below them: in one we would make our mount points, the other we would hide.
        if isinstance(destination, str) and _is_within(destination, paths.DIR_IN_CONTAINER):
            raise SpecError(
                f"the container has a mount of its own on {destination}, which is where "
                f"{' and '.join(_OUR_MOUNTS.values())} go: move it, or set the annotation "
                f'{ENABLE}="false"'
            )

    mounts = _child(spec, "mounts", list, create=True)
    for destination, source in zip(_OUR_MOUNTS, (additions.guest_dir, additions.socket_dir), strict=True):
        mounts.append(
            {
                "destination": destination,
                "type": "bind",
                "source": source,
                "options": ["bind", "ro", "nosuid", "nodev", "rprivate"],
            }
        )

    process = _child(spec, "process", dict, create=True)
    process["env"] = preload(_env(process), additions.version)

    annotations = _child(spec, "annotations", dict, create=True)
    annotations[GUEST] = additions.version
    set_criu_config(spec, additions.criu_config)

    hooks = _child(spec, "hooks", dict, create=True)
    for stage, script in HOOKS:
        _child(hooks, stage, list, create=True).append(
            {
                "path": f"{additions.hooks_dir}/{script}",
                "args": [f"{_HOOK_NAME}{script}", additions.record_dir],
                # Far more than it takes: a guard against a hung disk, which would hang the container's start.
                "timeout": 30,
            }
        )


def strip(spec: Spec) -> None:
    """Take out what ``edit`` has added, and the lists and objects that it had to make for it."""
    if not is_edited(spec):
        return
    _drop(spec, "mounts", lambda entry: entry.get("destination") in list(_OUR_MOUNTS))  # it may be anything

    process = _child(spec, "process", dict)
    if "env" in process:
        process["env"] = _unload(_env(process))

    _drop_hooks(spec)

    annotations = spec["annotations"]
    original = user_criu_config(spec)
    del annotations[GUEST]
    annotations.pop(_USER_CRIU_CONFIG, None)
    annotations.pop(_CRIU_CONFIG, None)
    if original is not None:
        annotations[_CRIU_CONFIG] = original
    if not annotations:
        del spec["annotations"]


def _drop_hooks(spec: Spec) -> None:
    hooks = _child(spec, "hooks", dict)
    before = len(hooks)
    for stage, _ in HOOKS:
        _drop(hooks, stage, _is_our_hook)
    if before and not hooks:
        del spec["hooks"]


def preload(env: list[str], version: str) -> list[str]:
    """``env`` with the guest library first in ``LD_PRELOAD``, before what the user has there."""
    library = library_in_container(version)
    loaded, found = [], False
    for entry in _unload(env):
        if entry.startswith("LD_PRELOAD="):
            # Every one of them, as some programs go by the first and some by the last.
            found = True
            loaded.append(f"LD_PRELOAD={library}:{entry.partition('=')[2]}")
        else:
            loaded.append(entry)
    return loaded if found else [*loaded, f"LD_PRELOAD={library}"]


def library_in_container(version: str) -> str:
    """The guest library's path, as the container sees it."""
    return f"{paths.GUEST_DIR_IN_CONTAINER}/{version}/{paths.GUEST_LIBRARY}"


def _unload(env: list[str]) -> list[str]:
    """``env`` without any version of the guest library in ``LD_PRELOAD``; untouched when there is none."""
    kept = []
    for entry in env:
        if entry.startswith("LD_PRELOAD=") and paths.GUEST_DIR_IN_CONTAINER in entry:
            libraries = entry.partition("=")[2].split(":")
            others = [library for library in libraries if not _is_guest_library(library)]
            if len(others) < len(libraries):
                if not others:
                    continue
                entry = f"LD_PRELOAD={':'.join(others)}"  # noqa: PLW2901
        kept.append(entry)
    return kept


def _is_guest_library(library: str) -> bool:
    return library.startswith(f"{paths.GUEST_DIR_IN_CONTAINER}/") and library.endswith(
        f"/{paths.GUEST_LIBRARY}"
    )


def _is_our_hook(entry: Spec) -> bool:
    args = entry.get("args")
    return isinstance(args, list) and bool(args) and str(args[0]).startswith(_HOOK_NAME)


def _brings_devices(mount: Spec) -> bool:
    """Whether a mount is of the devices, or puts something in their place: its source may be a link to them."""
    if _below_devices(mount.get("source")):
        return True
    return is_bind(mount) and _below_devices(mount.get("destination"))


def is_bind(mount: Spec) -> bool:
    """Whether a mount is a bind mount, by the two ways there are to say so."""
    options = mount.get("options")
    return mount.get("type") == "bind" or (
        isinstance(options, list) and ("bind" in options or "rbind" in options)
    )


def _below_devices(path: object) -> bool:
    return isinstance(path, str) and _is_within(path, _DEVICES)


def _is_within(path: str, folder: str) -> bool:
    """Whether a path is ``folder`` or below it, however it is spelt; the runtimes clean paths as well."""
    return f"/{os.path.normpath(path).lstrip('/')}/".startswith(f"{folder}/")


def _env(process: Spec) -> list[str]:
    env: list[str] = _child(process, "env", list)
    if not all(isinstance(entry, str) for entry in env):
        raise SpecError("process.env must be a list of strings")
    return env


def _drop(parent: Spec, key: str, condition: Any) -> None:
    """Remove the entries of a list that meet the condition, and the list with the last of them."""
    entries = _child(parent, key, list)
    kept = [entry for entry in entries if not (isinstance(entry, dict) and condition(entry))]
    if kept:
        parent[key] = kept
    elif entries:
        del parent[key]


def _child(parent: Spec, key: str, kind: type, *, create: bool = False) -> Any:
    """The member ``key`` of an object, which must be of this kind; absent and ``null`` are the same to Go."""
    value = parent.get(key)
    if value is None:
        value = kind()
        if create:
            parent[key] = value
    if not isinstance(value, kind):
        raise SpecError(f"{key} must be {'an object' if kind is dict else 'a list'}, not {value!r:.60}")
    return value
