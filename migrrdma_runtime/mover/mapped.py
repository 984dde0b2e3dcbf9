"""Files of a container's layer that its processes have mapped and write to: their times do not say when.

A store into a shared mapping changes a file's time only when the page was clean before. CRIU has the mapping in its
images, and not what is in it: that is the file's.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from migrrdma_runtime.shim import processes

_LINE = re.compile(r"^\S+ (?P<mode>\S+) \S+ \S+ \d+ +(?P<path>/.*)$")


def written_to(state: str) -> set[str]:
    """What they are called in its root; ``state`` is where the low-level runtime keeps the container's state."""
    first = processes.first_process(state)
    found: set[str] = set()
    for pid in processes.members(state, first) if first else ():
        try:
            lines = (
                Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
            )
        except OSError:
            continue  # it has ended
        for line in lines:
            if (one := _LINE.match(line)) and one["mode"][1] == "w" and one["mode"][3] == "s":
                found.add(one["path"].replace("\\012", "\n").lstrip("/"))  # of all else nothing is escaped
    return found


def within(names: set[str], target: str) -> set[str]:
    """Those below where the container mounts something, as they are called there."""
    prefix = f"{target.strip('/')}/"
    return {one.removeprefix(prefix) for one in names if one.startswith(prefix)}


def with_all_names(layer: Path, names: set[str]) -> list[str]:
    """Those that are files of the layer, with the other names that each has there: one file stays one file."""
    files = {}
    real = layer.resolve()
    for name in names:
        # What a process has mapped may be called anything (memfd_create(2)), and links are the container's.
        parts = name.split("/")
        if "\0" in name or ".." in parts or (real / name).parent.resolve() != real.joinpath(*parts[:-1]):
            continue
        try:
            status = (layer / name).lstat()
        except OSError:
            continue  # of another mount, or removed: its content is in CRIU's images then
        if stat.S_ISREG(status.st_mode):
            files[name] = status
    linked = {one.st_ino for one in files.values() if one.st_nlink > 1}
    for folder, _, here in os.walk(layer) if linked else ():
        for path in (Path(folder) / name for name in here):
            status = path.lstat()
            if status.st_ino in linked and stat.S_ISREG(status.st_mode):
                files[str(path.relative_to(layer))] = status
    return sorted(files)
