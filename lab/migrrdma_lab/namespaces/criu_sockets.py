"""Letting CRIU before 4.2 dump inet sockets on kernels from 6.16 on; see ``criu_sockets.c``.

The other way is a newer CRIU with its own libraries, from Debian unstable. This one keeps the rack on one release's
packages, and is gone as soon as Debian's CRIU can do without it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..steps import run_logged

_SOURCE = Path(__file__).with_suffix(".c")
_LIBRARY = "usr/local/lib/rack/criu-sockets.so"
_WRAPPER = f"""#!/bin/sh
# The fast rack's: this kernel does not tell CRIU what it asks about inet sockets.
LD_PRELOAD=/{_LIBRARY} exec /usr/sbin/criu "$@"
"""


def needed(root: Path) -> bool:
    """Whether the CRIU of the node file system ``root`` needs it on this machine's kernel."""
    packages = (root / "var/lib/dpkg/status").read_text()
    found = re.search(r"^Package: criu$(?:\n.+)*?\nVersion: (\d+)\.(\d+)", packages, re.MULTILINE)
    criu = (int(found[1]), int(found[2])) if found else (0, 0)
    return _kernel() >= (6, 16) and criu < (4, 2)


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(re.match(r"\d*", minor)[0] or 0)  # type: ignore[index]


def recipe() -> str:
    """What decides how the library and its wrapper look."""
    return _SOURCE.read_text() + _WRAPPER


def install(layer: Path, log: Path) -> None:
    """Put library and wrapper into a layer; the wrapper is found before Debian's CRIU on every PATH."""
    library = layer / _LIBRARY
    library.parent.mkdir(parents=True)
    run_logged(
        ["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, _SOURCE],
        log,
        60,
    )
    wrapper = layer / "usr/local/sbin/criu"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(_WRAPPER)
    wrapper.chmod(0o755)
