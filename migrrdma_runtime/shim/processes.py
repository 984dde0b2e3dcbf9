"""The processes of a container, by what the low-level runtime and the kernel have of them."""

import os

from migrrdma_runtime.base import kernel_file, process_start
from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.shim import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CGROUPS = "/sys/fs/cgroup"


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


def members(folder: str, first: int) -> "Iterator[int]":
    """The processes of a container whose first one this is: those in its cgroups and below them."""
    container = container_cgroups(folder, first)
    for name in filter(str.isdecimal, os.listdir("/proc")):
        groups = cgroups(int(name)) if container else []
        if groups and are_within(groups, container):
            yield int(name)


def container_cgroups(folder: str, first: int) -> "list[str]":
    """The cgroup of a container in each hierarchy, as `cgroups` has them; none: its first process has ended.

    That one may have gone into a cgroup below it, as systemd does: then it is the cgroup around that one which the
    low-level runtime has made, by runc's ``state.json`` or crun's ``status``.
    """
    made = _made_cgroups(folder)
    return [_outermost(line, made) for line in cgroups(first)]


def _made_cgroups(folder: str) -> "set[str]":
    """The cgroups that the low-level runtime has made, from the roots of their hierarchies."""
    made = set()
    for name in ("state.json", "status"):
        try:
            found, _ = bundle.read(f"{folder}/{name}")
        except SpecError:
            continue
        if not isinstance(found, dict):
            continue
        paths = found.get("cgroup_paths")
        for controller, path in paths.items() if isinstance(paths, dict) else ():
            inside = str(path).removeprefix(f"{_CGROUPS}/")
            # A controller of version 1 is mounted in a folder of its own; version 2 alone has none, or is "unified".
            made.add("/" + (inside.partition("/")[2] if controller else inside.removeprefix("unified/")))
        made.add(str(found.get("cgroup-path", "")))
    return made - {"", "/"}


def _outermost(line: str, made: "set[str]") -> str:
    """A line of ``cgroup`` with the cgroup that was made in place of one below it."""
    hierarchy, controllers, path = line.split(":", 2)
    around = path
    while around not in ("", "/"):
        if around in made:
            return f"{hierarchy}:{controllers}:{around}"
        around = os.path.dirname(around)
    return line


def are_within(groups: "list[str]", container: "list[str]") -> bool:
    """Whether a process with these cgroups is in those of the container, or in cgroups that it has made there."""
    return len(groups) == len(container) and all(
        f"{group}/".startswith(f"{outer.rstrip('/')}/")
        for group, outer in zip(groups, container, strict=True)
    )


def cgroups(pid: int) -> "list[str]":
    """A process's cgroup in each hierarchy; none: it has ended."""
    return kernel_file.lines(f"/proc/{pid}/cgroup")
