"""Checkpoint and restore of a container that holds RDMA connections: the runtime's part, around runc's.

The agent of this host does what comes before and after (``agent/source.py``, ``agent/destination.py``); here
is what only the runtime can do: dump, restore, keep the manifest beside CRIU's images, and kill what was
restored in vain. Nothing is dumped that was not drained, and nothing restored goes on before its connections
work.
"""

import contextlib
import os
import time

from migrrdma_runtime.base.errors import CheckpointError, MigrRDMAError, RestoreError
from migrrdma_runtime.criu import stats as criu_stats
from migrrdma_runtime.shim import child
from migrrdma_runtime.wire import manifest, runtime_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Call

    Perform = Callable[[], int]
    """The low-level runtime's part; returns its wait status."""


def run(call: "Call", runtime: str, settings: "Config", perform: "Perform") -> int:
    """Do a checkpoint or a restore; returns the low-level runtime's wait status."""
    low_level = _LowLevel(call, runtime)
    if call.command == "checkpoint":
        return _checkpoint(call, settings, low_level, perform)
    return _restore(call, settings, low_level, perform)


def _checkpoint(call: "Call", settings: "Config", low_level: "_LowLevel", perform: "Perform") -> int:
    for option in ("pre-dump", "parent-path", "lazy-pages"):
        if call.flag(option):
            # The NIC's writes escape dirty tracking (docs/criu.md): old bytes would be restored, silently.
            raise CheckpointError(
                f"checkpoint of {call.container_id}: --{option} cannot be used with a container that may "
                "hold RDMA connections, because a NIC's writes escape CRIU's dirty tracking; dump it whole"
            )
    leave_running = call.flag("leave-running")
    with runtime_client.connect(settings.run_dir) as agent:
        with low_level.thawed():
            ready = agent.checkpoint(call.container_id, leave_running=leave_running)
        if ready is None:
            return perform()
        directory = _images(call)
        status = 1
        try:
            # Before the dump, which ends the container: a disk that is full must be found out by then.
            os.makedirs(directory, mode=0o700, exist_ok=True)
            manifest.write(directory, ready["manifest"])
            start = time.time()
            status = perform()
        except OSError as error:
            raise CheckpointError(f"cannot make {directory}: {error.strerror}") from error
        finally:
            if status:
                manifest.remove(directory)
                with low_level.thawed():
                    agent.report(ready["migration"], succeeded=False)
        with low_level.thawed() if leave_running else contextlib.nullcontext():
            agent.report(ready["migration"], succeeded=True, steps=criu_stats.dump_steps(_work(call), start))
        return status


def _restore(call: "Call", settings: "Config", low_level: "_LowLevel", perform: "Perform") -> int:
    document = manifest.read(_images(call))
    if document is None:
        return perform()
    if not call.flag("d", "detach"):
        raise RestoreError(
            f"restore of {call.container_id}: a container with RDMA connections can only be restored with "
            "--detach: they are made again once the low-level runtime has returned"
        )
    with runtime_client.connect(settings.run_dir) as agent:
        migration = agent.restore(call.container_id, document)
        status = 1
        try:
            start = time.time()
            status = perform()
        finally:
            if status:
                agent.report(migration, succeeded=False)
        if status:
            return status
        try:
            agent.report(migration, succeeded=True, steps=criu_stats.restore_steps(_work(call), start))
        except MigrRDMAError:
            low_level.do("delete", "--force")  # before it runs on without its connections
            raise
        return status


def _images(call: "Call") -> str:
    """Where CRIU's images are, by runc's default: ``checkpoint`` in the working directory."""
    return os.path.abspath(call.value("image-path") or "checkpoint")


def _work(call: "Call") -> str:
    """Where CRIU writes its log and its statistics."""
    return os.path.abspath(call.value("work-path") or _images(call))


class _LowLevel:
    """The low-level runtime's other subcommands, on the container of this call."""

    def __init__(self, call: "Call", runtime: str) -> None:
        self._call = call
        self._runtime = runtime

    def do(self, subcommand: str, *options: str) -> bool:
        """Run ``runc SUBCOMMAND``, silently; whether it succeeded."""
        root = self._call.globals.get("root")
        arguments = [*(["--root", root] if root else []), subcommand, *options, self._call.container_id]
        with open(os.devnull, "wb") as nowhere:
            return child.run(self._runtime, arguments, nowhere.fileno()) == 0

    @contextlib.contextmanager
    def thawed(self) -> "Iterator[None]":
        """Let a paused container run meanwhile: a frozen process can neither drain nor go on.

        containerd pauses a task before it has the runtime checkpoint it, and resumes it afterwards
        (``task.Checkpoint`` in its client), so it must find it paused again.
        """
        paused = self.do("resume")
        try:
            yield
        finally:
            if paused:
                self.do("pause")
