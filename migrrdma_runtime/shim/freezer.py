"""The freezer of a container's cgroup, which CRIU closes until it has stopped every process (``freeze_processes``).

A low-level runtime has CRIU freeze the container's cgroup, and CRIU opens it again, unless it is killed in between.
"""

import os

from migrrdma_runtime.shim import processes

ROOT = "/sys/fs/cgroup"
_V2, _V1 = "cgroup.freeze", "freezer.self_freezing"
"""cgroup-v2.rst and cgroup-v1/freezer-subsystem.rst in the kernel; 1: closed, and not only because one above it is."""


def closed(first: int) -> "list[str]":
    """The cgroups of a process and those above them that are frozen themselves, as directories."""
    return [folder for folder in _folders(first) if _is_closed(folder)]


def open_again(folders: "list[str]") -> None:
    """Let the processes in these go on; one that is gone has none."""
    for folder in folders:
        try:
            if os.path.exists(f"{folder}/{_V2}"):
                _write(f"{folder}/{_V2}", "0")
            else:
                _write(f"{folder}/freezer.state", "THAWED")
        except OSError:
            continue


def _folders(first: int) -> "list[str]":
    found = []
    for line in processes.cgroups(first):
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer":
            root = f"{ROOT}/freezer"
        elif not controllers:
            root = ROOT if os.path.exists(f"{ROOT}/cgroup.controllers") else f"{ROOT}/unified"
        else:
            continue
        while path not in ("", "/"):
            found.append(root + path)
            path = os.path.dirname(path)
    return found


def _is_closed(folder: str) -> bool:
    for name in (_V2, _V1):
        try:
            with open(f"{folder}/{name}", encoding="ascii") as file:
                return file.read().strip() == "1"
        except OSError:
            continue
    return False


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
