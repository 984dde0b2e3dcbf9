"""A file tree as something to compare."""

from __future__ import annotations

import stat

from migrrdma_runtime.host.machine import Host

Tree = dict[str, tuple[int, str]]


def tree_of(host: Host) -> Tree:
    """Every path with its mode and content."""
    found: Tree = {}
    for path in sorted(host.root.rglob("*")):
        if path.is_symlink():
            content = f"-> {path.readlink()}"
        else:
            content = path.read_bytes().hex() if path.is_file() else ""
        found[host.name(path)] = (stat.S_IMODE(path.lstat().st_mode), content)
    return found
