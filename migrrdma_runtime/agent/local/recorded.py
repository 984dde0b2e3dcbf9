"""The containers that the runtime has recorded, found by the cgroup that a process is in.

What they are is in ``run_dir/containers/ID/state.json``, which the hook ``record-container`` wrote. An agent that
starts is greeted by every guest of the host at once, and to read all of these files for each of them would stop its
loop for the better part of a minute. So they are kept by their cgroup, and read again when one has come or gone, and
when what is kept turns out not to be so any more.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.base import kernel_file, process_start

_SETTLED_S = 10
"""A container's first process comes to its own cgroup while the container is made; until then it is looked at anew."""

_MISSED_S = 1.0
"""Who is in no container, by what has just been read, is not looked for in all records again until then. A guest whose
container was recorded meanwhile, in a directory that a former one has left, connects once more a second later."""

_RACY_NS = 100_000_000
"""Two changes of a directory within one tick of the kernel's clock leave the same time on it."""


_ENGINES_ID = re.compile("[0-9a-f]{64}")
"""The id of an engine's container, whose cgroup it calls ``ID``, ``docker-ID.scope`` or the like."""


@dataclass
class _Container:
    id: str
    first: int
    """Its first process."""
    written: float
    """When its record was, in seconds since 1970."""
    group: str


class Recorded:
    """The records below a directory."""

    def __init__(self, records: Path, proc: Path) -> None:
        self._records = records
        self._proc = proc
        self._seen: tuple[int, int] | None = None
        """The directory as it was when its records were read; None: they must be read."""
        self._read_at = -_MISSED_S
        """When that was, by the monotonic clock."""
        self._half: list[Path] = []
        """Those without a record yet."""
        self._containers: list[_Container] = []
        self._young: list[_Container] = []
        """Those whose first process may be on its way."""
        self._by_group: dict[str, _Container] = {}

    def container_of(self, pid: int) -> str:
        """The id of the container that a process is in; "" when it is in none."""
        cgroup = self._cgroup(pid)
        if cgroup == "/":
            return ""
        if self._is_read():
            self._look_at_the_young()
            found = self._find(cgroup)
            if found is not None and self._group(found.id, found.first) == found.group:
                return found.id
            if found is None and time.monotonic() < self._read_at + _MISSED_S:
                return ""
        self._read_all()
        found = self._find(cgroup)
        return "" if found is None else found.id

    def processes(self, pids: Iterable[int]) -> dict[str, list[int]]:
        """Which of these processes are in which container; those that are in none are left out."""
        self._read_all()
        found: dict[str, list[int]] = {}
        for pid in pids:
            where = self._find(self._cgroup(pid))
            if where is not None:
                found.setdefault(where.id, []).append(pid)
        return found

    def _find(self, cgroup: str) -> _Container | None:
        """The innermost container around a cgroup."""
        while cgroup:
            if cgroup in self._by_group:
                return self._by_group[cgroup]
            cgroup = cgroup.rpartition("/")[0]
        return None

    def _is_read(self) -> bool:
        return self._seen == self._directory() and not any(map(os.path.lexists, self._half))

    def _directory(self) -> tuple[int, int] | None:
        try:
            found = self._records.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _read_all(self) -> None:
        directory = self._directory()
        recent = directory is not None and directory[1] > time.time_ns() - _RACY_NS
        self._seen = None if recent else directory
        self._read_at = time.monotonic()
        self._half, self._containers = [], []
        with contextlib.suppress(OSError), os.scandir(self._records) as entries:
            for entry in entries:
                self._read(entry.name, self._records / entry.name / "state.json")
        self._young = list(self._containers)
        self._index()

    def _read(self, name: str, path: Path) -> None:
        try:
            with path.open("rb") as file:
                written = os.fstat(file.fileno()).st_mtime
                first = int(json.loads(file.read())["pid"])
        except FileNotFoundError:
            self._half.append(path)  # the directory is there before the record, or after it
        except (OSError, ValueError, KeyError, TypeError):
            pass  # half a container
        else:
            self._containers.append(_Container(name, first, written, self._group(name, first)))

    def _look_at_the_young(self) -> None:
        since = time.time() - _SETTLED_S
        self._young = [one for one in self._young if one.written > since]
        for one in self._young:
            group = self._group(one.id, one.first)
            if group != one.group:
                one.group = group
                self._index()

    def _index(self) -> None:
        self._by_group = {}
        for one in self._containers:
            if one.group == "/":
                continue
            other = self._by_group.setdefault(one.group, one)
            # A record that was left behind, of a process whose number has gone to one of this container: which is
            # younger than the container's own first one.
            if other is not one and self._started(one.first) < self._started(other.first):
                self._by_group[one.group] = one

    def _started(self, pid: int) -> float:
        """When a process started, in clock ticks since the boot; infinite: there is none."""
        found = process_start.look(pid, str(self._proc))
        return math.inf if found is None else found[1]

    def _group(self, container: str, first: int) -> str:
        """A container's cgroup: its first process's, or the one around it that an engine has named after the container.

        A first process may go into a cgroup below its container's, as systemd does, and others into other ones.
        """
        cgroup = self._cgroup(first)
        if not _ENGINES_ID.fullmatch(container):
            return cgroup  # of one that a person has named, any cgroup may have the name
        names = cgroup.split("/")
        named = [at for at, name in enumerate(names, 1) if container in name]
        return "/".join(names[: named[0]]) if named else cgroup

    def _cgroup(self, pid: int) -> str:
        """The cgroup's path: of version 2's hierarchy, or of the one that systemd or the freezer uses; ``/``: none."""
        paths: dict[str, str] = {}
        for line in kernel_file.lines(f"{self._proc}/{pid}/cgroup"):
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            paths["2" if number == "0" else controllers] = path
        candidates = (paths.get("2"), paths.get("freezer"), paths.get("devices"), paths.get("name=systemd"))
        return next((path for path in candidates if path and path != "/"), "/")
