"""``checkpoint``: have the low-level runtime dump a container, with its RDMA connections if it holds any.

The agent of this host does what comes before and after (``agent/roles/source.py``); here is what only the runtime
can do: dump, and keep the manifest beside CRIU's images. Nothing is dumped that was not drained.
"""

import contextlib
import os
import time

from migrrdma_runtime.base.errors import CheckpointError
from migrrdma_runtime.criu import stats
from migrrdma_runtime.shim import child
from migrrdma_runtime.shim.criu_run import CriuRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Invocation

_PARTIAL = ("pre-dump", "parent-path", "lazy-pages")
"""Options that leave memory out which the dirty tracking says is known, or send it later."""


class CheckpointOptions:
    """What ``checkpoint`` was asked, as far as it matters to us."""

    def __init__(self, invocation: "Invocation") -> None:
        self.container_id = invocation.container_id
        self.leave_running = invocation.flag("leave-running")
        self.partial = [f"--{name}" for name in _PARTIAL if invocation.flag(name)]


def run(invocation: "Invocation", runtime: str, config: "Config") -> "NoReturn":
    """Run a checkpoint to its end; never returns."""
    options = CheckpointOptions(invocation)
    dump = CriuRun(invocation, runtime, config)
    if dump.facts.has_guest:
        child.end_like(_dump_with_connections(options, dump, config))
    child.end_like(dump.perform())


def _dump_with_connections(options: CheckpointOptions, dump: CriuRun, config: "Config") -> int:
    """Quiesce, dump, report; returns the low-level runtime's wait status."""
    from migrrdma_runtime.wire import manifest, runtime_client

    if options.partial:
        # The NIC's writes escape dirty tracking (docs/criu.md): old bytes would be restored, silently.
        raise CheckpointError(
            f"checkpoint of {options.container_id}: {options.partial[0]} cannot be used with a container that may "
            "hold RDMA connections, because a NIC's writes escape CRIU's dirty tracking; dump it whole"
        )
    with runtime_client.connect(config.run_dir) as agent:
        with dump.container.thawed():
            ready = agent.checkpoint(options.container_id, leave_running=options.leave_running)
        if ready is None:
            return dump.perform()
        status = 1
        try:
            # Before the dump, which ends the container: a disk that is full must be found out by then.
            os.makedirs(dump.images, mode=0o700, exist_ok=True)
            manifest.write(dump.images, ready["manifest"])
            start = time.time()
            status = dump.perform()
        except OSError as error:
            raise CheckpointError(f"cannot make {dump.images}: {error.strerror}") from error
        finally:
            if status:
                manifest.remove(dump.images)
                with dump.container.thawed():
                    agent.report(ready["migration"], succeeded=False)
        with dump.container.thawed() if options.leave_running else contextlib.nullcontext():
            agent.report(ready["migration"], succeeded=True, steps=stats.dump_steps(dump.work, start))
        return status
