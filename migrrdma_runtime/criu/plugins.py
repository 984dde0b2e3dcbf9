"""The directory from which CRIU loads its plugins: ours, and every other that it would load without us.

CRIU takes all plugins from one directory (``libdir``) and asks them in the order in which that directory
lists them. Ours must be there with the others, and before them: amdgpu_plugin answers for mappings and
descriptors that are not its own (-1 where there is no /dev/kfd, 0 for what it does not know), and whoever
comes after it is not asked. cuda_plugin leaves to others what is not its own.
"""

import os
import re
import shutil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ATTEMPTS = 64
"""Of as many names in a directory with two plugins, all come second with a probability of 2⁻⁶⁴."""


def inherited_directory(configuration: str) -> str:
    """Where CRIU would look without us: its configuration's ``libdir``, its environment's, its default."""
    chosen = re.findall(r"^[ \t]*libdir[ \t]+(\S+)", configuration, re.MULTILINE)
    if chosen:
        return str(chosen[-1]).strip("\"'")
    return os.environ.get("CRIU_LIBS_DIR") or _default_directory()


def _default_directory() -> str:
    """What a build of CRIU with that prefix has compiled in (``PREFIX/lib/criu``)."""
    binary = (
        shutil.which("criu") or shutil.which("criu", path="/usr/local/sbin:/usr/sbin") or "/usr/sbin/criu"
    )
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(binary)))
    return f"{prefix}/lib/criu"


def gather(directory: str, ours: str, inherited: str) -> bool:
    """Fill ``directory`` with links to our plugin and to those in ``inherited``; whether ours comes first.

    It may exist already, from an earlier time; then it is made anew.
    """
    plugin = os.path.basename(ours)
    others = _plugins(inherited, except_for=plugin)
    links = [(os.path.basename(other), other) for other in others]
    for attempt in range(_ATTEMPTS):
        name = plugin if attempt < 2 else f"{attempt}-{plugin}"
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        # Some filesystems list the newest entry first, some the oldest; others go by a hash of the name.
        for link, target in [*links, (name, ours)] if attempt % 2 == 0 else [(name, ours), *links]:
            os.symlink(target, os.path.join(directory, link))
        with os.scandir(directory) as entries:  # in the order of readdir(3), as CRIU sees it
            if next(entries).name == name:
                return True
    return False


def _plugins(directory: str, except_for: str) -> "list[str]":
    """The plugins there; CRIU takes every name that ends in ``.so``."""
    try:
        names: Iterable[str] = os.listdir(directory)
    except OSError:
        return []
    return [
        os.path.join(directory, name) for name in sorted(names) if name.endswith(".so") and name != except_for
    ]
