"""The low-level runtime that does the work: find it, become it, know where it keeps its state."""

import _signal  # type: ignore[import-not-found]  # the ``signal`` module wraps this one in enums, for 4 ms
import os

from migrrdma_runtime.base import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from migrrdma_runtime.shim.argv import Invocation

_USUAL_DIRS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec:/usr/local/libexec"
"""Looked into after ``$PATH``: container daemons are often started with a short one."""

_LAUNCHER_MARK = b"migrrdma_runtime.oci"
"""In every launcher, in C (``launcher/mark.h``) or Python, also in a copy or another installation under runc's name."""

_MARK_WITHIN = 4096
"""It stands in a launcher's first so many bytes."""


def find(name: str) -> str:
    """The absolute path of the low-level runtime called ``name`` (or at the path ``name``)."""
    if "/" in name:
        candidates = [name]
    else:
        # Relative entries of PATH are skipped: root must not run what lies in the current directory.
        path = f"{os.environ.get('PATH', '')}:{_USUAL_DIRS}".split(":")
        candidates = [f"{folder}/{name}" for folder in path if folder.startswith("/")]
    own = ""
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            if not _is_launcher(candidate):
                return candidate
            own = candidate
    from migrrdma_runtime.base.errors import RuntimeNotFoundError

    raise RuntimeNotFoundError(_explain(name, candidates, own))


def become(runtime: str, args: list[str]) -> "NoReturn":
    """Replace this process by the low-level runtime: the one place where that happens.

    ``execv`` hands on the environment as the C library has it, to the byte, and every descriptor that was
    inherited; what Python opened itself is close-on-exec.
    """
    _undo_interpreter_start()
    try:
        os.execv(runtime, [runtime, *args])  # noqa: S606
    except OSError as error:
        from migrrdma_runtime.base.errors import RuntimeNotFoundError

        raise RuntimeNotFoundError(f"cannot run the low-level runtime {runtime}: {error.strerror}") from error


def flavour(runtime: str) -> str:
    """Whose command line and files ``runtime`` has, by its name or path: ``crun``'s or ``runc``'s."""
    return "crun" if "crun" in os.path.basename(runtime) else "runc"


def default_root(runtime: str) -> str:
    """Where ``runtime`` keeps its containers when ``--root`` is not given: by its own rules."""
    name = flavour(runtime)
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    # Real root ignores XDG_RUNTIME_DIR, which sudo and su leave pointing at a user's directory.
    return f"{xdg}/{name}" if xdg and os.geteuid() != 0 else f"/run/{name}"


def folder(invocation: "Invocation", runtime: str) -> str:
    """Where ``runtime`` keeps the state of the invocation's container."""
    return f"{invocation.globals.get('root') or default_root(runtime)}/{invocation.container_id}"


def _undo_interpreter_start() -> None:
    """Take back what starting an interpreter changed and the low-level runtime would inherit."""
    # Python ignores these two, and "ignored" survives exec: through crun, which is C, into the container.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    # In the C locale Python sets LC_CTYPE for its children (PEP 538). What the caller had set is known only
    # to the block that the kernel made when this process started.
    if os.environ.get("LC_CTYPE") == "C.UTF-8":
        with open("/proc/self/environ", "rb", buffering=0) as block:
            before = [entry for entry in block.read().split(b"\0") if entry.startswith(b"LC_CTYPE=")]
        if before:
            os.putenv(b"LC_CTYPE", before[0].partition(b"=")[2])
        else:
            os.unsetenv("LC_CTYPE")


def _is_launcher(path: str) -> bool:
    """Whether ``path`` is a launcher of ours; to exec it would be to exec ourselves for ever."""
    try:
        with open(path, "rb", buffering=0) as file:
            return _LAUNCHER_MARK in file.read(_MARK_WITHIN)
    except OSError:
        return False  # executable but not readable: then it is no script


def _explain(name: str, candidates: list[str], own: str) -> str:
    remedy = f"install it, or set `runtime` in {os.environ.get('MIGRRDMA_CONFIG') or paths.CONFIG_FILE}"
    if own:
        return f"the low-level runtime {name!r} is {own}, which is migrrdma-runtime itself: {remedy}"
    if "/" in name:
        reason = "is not an executable file" if os.access(name, os.F_OK) else "does not exist"
        return f"the low-level runtime {name} {reason}: {remedy}"
    folders = dict.fromkeys(candidate.rpartition("/")[0] for candidate in candidates)
    return f"cannot find the low-level runtime {name!r} in {', '.join(folders)}: {remedy}"
