"""A container whose checkpoint is staged on this host: its ``create`` restores it, and its ``start`` finds it running.

An engine starts a container by asking its runtime to ``create`` it and then to ``start`` it. Where a checkpoint waits
for that container, by its id, ``create`` is answered by a restore. To the engine it is an ordinary container, with its
own network, log and limits; neither its checkpoint command nor its content store has a part in it.

What is staged, the images or a link to them (``criu/staging.py``), stays until the ``start`` of what was restored:
until then the engine can fail, and ends the container, so that its start can be tried again.
"""

import contextlib
import os
import stat
import sys

from migrrdma_runtime.base.errors import RestoreError, SpecError
from migrrdma_runtime.shim import argv, bundle, lowlevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Invocation

ADOPTED = "org.migrrdma.adopted"
"""The annotation of a container that ``create`` has restored: what it has followed. It is in the low-level
runtime's own state of the container, and so ends with it; it is there before anything is restored, when it can still
be refused."""

AWAITED = "migrrdma.awaited"
"""In a folder that is staged: what belongs there is on its way from another host (``mover/arrival.py``)."""

_TAKEN_OVER = ("console-socket", "pid-file", "preserve-fds")
"""Options of ``create`` that ``restore`` has as well, and the engine counts on. ``--no-pivot`` it does not need, as the
mounts are CRIU's to make; ``--pidfd-socket`` it cannot serve."""


def _link(config: "Config", container_id: str) -> str:
    return os.path.join(config.staged_dir, container_id)


def _is_name(container_id: str) -> bool:
    return "/" not in container_id and container_id not in ("", ".", "..")


def which(config: "Config", container_id: str) -> str:
    """What is staged, told from all that replaces it; empty if nothing is.

    The id, which comes from outside, names nothing outside of the folder.
    """
    if not _is_name(container_id):
        return ""
    try:
        found = os.lstat(_link(config, container_id))
    except OSError:
        return ""
    # CRIU writes into the images' folder, and so changes when that was changed.
    return f"{found.st_ino}-{found.st_ctime_ns if stat.S_ISLNK(found.st_mode) else 0}"


def is_staged(config: "Config", container_id: str) -> bool:
    """Whether one is. A link whose images have gone is taken away: others could come by the same name."""
    link = which(config, container_id)
    if not link:
        return False
    try:
        os.stat(_link(config, container_id))
    except (FileNotFoundError, NotADirectoryError):
        forget(config, container_id, link)
        return False
    except OSError as error:
        raise RestoreError(
            f"container {container_id} is not started: what is staged for it cannot be reached "
            f"({_link(config, container_id)}: {error.strerror}); without that link it begins anew"
        ) from error
    return True


def forget(config: "Config", container_id: str, what: str) -> None:
    """Take away that (`which`), and nothing that has been staged since: it is not to be restored once more.

    Not by a start after a power cut either, so it is written down; and what is removed piece by piece is not found.
    """
    if not what or which(config, container_id) != what:
        return
    staged, gone = _link(config, container_id), _link(config, f".{container_id}.gone")
    with contextlib.suppress(OSError):  # discarded at this moment
        if os.path.islink(staged):
            os.unlink(staged)
        else:
            _remove(gone)  # left by one that was killed
            os.rename(staged, gone)
        folder = os.open(config.staged_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        _remove(gone)


def _remove(folder: str) -> None:
    if os.path.lexists(folder):
        import shutil

        shutil.rmtree(folder)


def wait_for_the_rest(invocation: "Invocation", config: "Config") -> None:
    """Wait until what is staged is here, if it is still on its way; `AgentError`: it will not come."""
    if not os.path.exists(os.path.join(_link(config, invocation.container_id), AWAITED)):
        return
    from migrrdma_runtime.shim import root_mount
    from migrrdma_runtime.wire.mover_client import Mover

    with Mover(config.run_dir) as mover:
        answer = mover.ask({"op": "awaited", "container": invocation.container_id})
    if answer["new_root"]:
        root_mount.mount_anew(invocation.value("b", "bundle") or ".")


def as_restore(invocation: "Invocation", config: "Config") -> "Invocation":
    """The restore that answers a ``create``, of which the bundle is marked; `RestoreError` for a ``run``."""
    if invocation.command == "run":
        raise RestoreError(
            f"container {invocation.container_id} is not run: a checkpoint is staged for it, which create and start "
            f"restore ({_link(config, invocation.container_id)}; without that link it begins anew)"
        )
    wait_for_the_rest(invocation, config)
    link = which(config, invocation.container_id)
    found = argv.parse(_arguments(invocation, config))
    _mark(found, link, config)
    return found


def start(invocation: "Invocation", runtime: str, config: "Config") -> None:
    """End well if the container was restored by ``create`` and runs; otherwise it is the low-level runtime's to start.

    It is looked at, and not believed by its mark: one that has ended meanwhile must not count as started.
    """
    link = _followed(invocation, runtime)
    if link and _status(invocation, runtime) == "running":
        from migrrdma_runtime.shim import cut_off

        cut_off.let_in(lowlevel.folder(invocation, runtime))
        forget(config, invocation.container_id, link)
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


def _mark(invocation: "Invocation", link: str, config: "Config") -> None:
    """Have the low-level runtime keep, in the state of what it restores, that it was restored by ``create``.

    And have it cut the new network off, until `start`, before the engine attaches it (``hooks/cut-off``).
    """
    from migrrdma_runtime.shim import prepare, spec

    path = prepare.spec_path(invocation)
    value, unsafe = bundle.read(path)
    if unsafe:
        raise unsafe
    if not isinstance(value, dict):
        raise SpecError(f"{path}: not an object")
    annotations = value.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise SpecError(f"{path}: annotations must be an object")
    value["annotations"] = annotations | {ADOPTED: link}
    if spec.makes_network(value):
        spec.add_first_hook(value, f"{config.hooks_dir}/cut-off")
    bundle.replace(path, value)


def _followed(invocation: "Invocation", runtime: str) -> str:
    """The link by which ``create`` has restored the container; empty if it has not."""
    for name in ("state.json", "config.json"):  # runc's and crun's
        try:
            with open(os.path.join(lowlevel.folder(invocation, runtime), name), "rb") as file:
                content = file.read()
        except OSError:
            continue
        if ADOPTED.encode() in content:
            import re

            # "org.migrrdma.adopted=1-2" in runc's, "org.migrrdma.adopted": "1-2" in crun's
            found = re.search(re.escape(ADOPTED.encode()) + rb"\W+([0-9]+-[0-9]+)\b", content)
            return found[1].decode() if found else ""
    return ""


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
