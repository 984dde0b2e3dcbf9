"""How this machine's kernel has to look to CRIU on a node that is a set of namespaces; see ``criu_kernel.c``.

For sockets there is another way, a newer CRIU with its own libraries, from Debian unstable. This one keeps the rack on
one release's packages, and is gone as soon as Debian's CRIU can do without it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..steps import run_logged

_SOURCE = Path(__file__).with_suffix(".c")
_LIBRARY = "usr/local/lib/rack/criu-kernel.so"
_WRAPPER = f"""#!/bin/sh
# The fast rack's: how this machine's kernel has to look to CRIU.
LD_PRELOAD=/{_LIBRARY} exec /usr/sbin/criu "$@"
"""


def needed(root: Path) -> bool:
    """Whether the CRIU of the node file system ``root`` needs it on this machine."""
    packages = (root / "var/lib/dpkg/status").read_text()
    found = re.search(r"^Package: criu$(?:\n.+)*?\nVersion: (\d+)\.(\d+)", packages, re.MULTILINE)
    criu = (int(found[1]), int(found[2])) if found else (0, 0)
    return (_kernel() >= (6, 16) and criu < (4, 2)) or _has_version_1()


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _has_version_1(cgroups: Path = Path("/proc/self/cgroup")) -> bool:
    """Whether version 1's cgroup hierarchies are in use beside version 2's."""
    return any(not line.startswith("0::") for line in cgroups.read_text().splitlines())


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
