"""The package's compiled modules.

pip makes them, other installers may not (``--no-compile``), and the agent's service could not keep any: its file
system is read-only. Without them the runtime would compile itself at every start of a container.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import struct
from functools import partial
from pathlib import Path

from migrrdma_runtime.host.install.step import Step


def plan(package: Path) -> list[Step]:
    """The step that compiles what is not compiled, if there is a place for the result."""
    if not os.access(package, os.W_OK):
        return []  # it works, only slower
    missing = [file for file in sorted(package.rglob("*.py")) if not _is_compiled(file)]
    if not missing:
        return []
    return [Step(str(package), partial(_compile, missing), f"compiling {len(missing)} modules")]


def _is_compiled(source: Path) -> bool:
    """Whether Python would take the compiled module: of this version, and of this very source."""
    status = source.stat()
    expected = struct.pack("<4sIII", importlib.util.MAGIC_NUMBER, 0, int(status.st_mtime), status.st_size)
    try:
        with Path(importlib.util.cache_from_source(str(source))).open("rb") as file:
            found = file.read(16)
    except OSError:
        return False
    # Flags other than 0 mean a source that is known by its digest, as distributions with no clock have it.
    return found == expected or (found[:4] == expected[:4] and found[4:8] != b"\0\0\0\0")


def _compile(files: list[Path]) -> None:
    for file in files:
        compileall.compile_file(file, quiet=2, force=True)
