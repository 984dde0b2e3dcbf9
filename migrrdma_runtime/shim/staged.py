"""A container whose checkpoint is staged on this host: its ``create`` restores it, and its ``start`` finds it running.

An engine starts a container by asking its runtime to ``create`` it and then to ``start`` it. Where a checkpoint waits
for that container, by its id, ``create`` is answered by a restore. To the engine it is an ordinary container, with its
own network, log and limits; neither its checkpoint command nor its content store has a part in it.

What is staged, the images or a link to them (``criu/staging.py``), stays until they have been restored: a start that
fails can be tried again.
"""

import contextlib
import os
import sys

from migrrdma_runtime.base.errors import RestoreError, SpecError
from migrrdma_runtime.shim import argv, bundle, lowlevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Invocation

ADOPTED = "org.migrrdma.adopted"
"""The annotation of a container that ``create`` has restored. It is in the low-level runtime's own state of the
container, and so ends with it; it is there before anything is restored, when it can still be refused."""

_TAKEN_OVER = ("console-socket", "pid-file", "preserve-fds")
"""Options of ``create`` that ``restore`` has as well, and the engine counts on. ``--no-pivot`` it does not need, as the
mounts are CRIU's to make; ``--pidfd-socket`` it cannot serve."""


def _link(config: "Config", container_id: str) -> str:
    return os.path.join(config.staged_dir, container_id)


def _is_name(container_id: str) -> bool:
    return "/" not in container_id and container_id not in ("", ".", "..")


def is_staged(config: "Config", container_id: str) -> bool:
    """Whether one is; the id, which comes from outside, names nothing outside of the folder."""
    return _is_name(container_id) and os.path.isdir(_link(config, container_id))


def forget(config: "Config", container_id: str) -> None:
    """Take away what has been restored: it is not to be restored once more by the next start."""
    if not _is_name(container_id):
        return
    link = _link(config, container_id)
    with contextlib.suppress(OSError):  # there is none
        if os.path.isdir(link) and not os.path.islink(link):
            import shutil

            shutil.rmtree(link)
        else:
            os.unlink(link)


def as_restore(invocation: "Invocation", config: "Config") -> "Invocation":
    """The restore that answers a ``create``, of which the bundle is marked; `RestoreError` for a ``run``."""
    if invocation.command == "run":
        raise RestoreError(
            f"container {invocation.container_id} is not run: a checkpoint is staged for it, which create and start "
            f"restore ({_link(config, invocation.container_id)}; without that link it begins anew)"
        )
    found = argv.parse(_arguments(invocation, config))
    _mark(found)
    return found


def start(invocation: "Invocation", runtime: str) -> None:
    """End well if the container was restored by ``create`` and runs; otherwise it is the low-level runtime's to start.

    It is looked at, and not believed by its mark: one that has ended meanwhile must not count as started.
    """
    if _was_adopted(invocation, runtime) and _status(invocation, runtime) == "running":
        sys.exit(0)


def _arguments(invocation: "Invocation", config: "Config") -> list[str]:
    found = [*invocation.args[: invocation.command_index], "restore", "--detach"]
    found += ["--image-path", os.path.realpath(_link(config, invocation.container_id))]
    found += ["--bundle", invocation.value("b", "bundle") or "."]
    if lowlevel.flavour(config.runtime) == "crun" and invocation.value("f", "config"):
        found += ["--config", invocation.value("f", "config")]
    for name in _TAKEN_OVER:
        if value := invocation.value(name):
            found += [f"--{name}", value]
    return [*found, invocation.container_id]


def _mark(invocation: "Invocation") -> None:
    """Have the low-level runtime keep, in the state of what it restores, that it was restored by ``create``."""
    from migrrdma_runtime.shim import prepare

    path = prepare.spec_path(invocation)
    value, unsafe = bundle.read(path)
    if unsafe:
        raise unsafe
    if not isinstance(value, dict):
        raise SpecError(f"{path}: not an object")
    annotations = value.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise SpecError(f"{path}: annotations must be an object")
    value["annotations"] = annotations | {ADOPTED: "true"}
    bundle.replace(path, value)


def _was_adopted(invocation: "Invocation", runtime: str) -> bool:
    for name in ("state.json", "config.json"):  # runc's and crun's
        try:
            with open(os.path.join(lowlevel.folder(invocation, runtime), name), "rb") as file:
                if ADOPTED.encode() in file.read():
                    return True
        except OSError:
            continue
    return False


def _status(invocation: "Invocation", runtime: str) -> str:
    """What the low-level runtime says the container is; empty if it says nothing."""
    import json
    import subprocess

    root = invocation.globals.get("root")
    words = [runtime, *(["--root", root] if root else []), "state", invocation.container_id]
    try:
        said = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False
        )
        return str(json.loads(said.stdout)["status"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return ""
