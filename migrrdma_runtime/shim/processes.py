"""The processes of a container, by what the low-level runtime and the kernel have of them."""

import os

from migrrdma_runtime.base import process_start
from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.shim import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def first_process(folder: str) -> int:
    """The container's first process, by runc's ``state.json`` or crun's ``status`` in the folder.

    0: it has ended, and its number may be another's by now.
    """
    for name, member, start in (
        ("state.json", "init_process_pid", "init_process_start"),
        ("status", "pid", "process-start-time"),
    ):
        try:
            found, _ = bundle.read(f"{folder}/{name}")
            if not isinstance(found, dict):
                return 0
            pid = int(found[member])
            running = process_start.look(pid)
            return pid if found.get(start) in (None, running and running[1]) else 0
        except (SpecError, KeyError, TypeError, ValueError):
            continue
    return 0


def members(first: int) -> "Iterator[int]":
    """The processes in the cgroups of this one and below them: of a container's first process, the container's."""
    container = cgroups(first)
    for name in filter(str.isdecimal, os.listdir("/proc")):
        groups = cgroups(int(name)) if container else []
        if groups and are_within(groups, container):
            yield int(name)


def are_within(groups: "list[str]", container: "list[str]") -> bool:
    """Whether a process with these cgroups is in those of the container, or in cgroups that it has made there."""
    return len(groups) == len(container) and all(
        f"{group}/".startswith(f"{outer.rstrip('/')}/")
        for group, outer in zip(groups, container, strict=True)
    )


def cgroups(pid: int) -> "list[str]":
    """A process's cgroup in each hierarchy; none: it has ended."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
