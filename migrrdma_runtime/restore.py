"""``restore``: have the low-level runtime restore a container, with its RDMA connections if its checkpoint holds any.

The agent of this host does what comes before and after (``agent/roles/destination.py``); here is what only the runtime
can do: restore, and kill what was restored in vain. Nothing restored goes on before its connections work.
"""

import os
import time

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import AgentError, MigrRDMAError, RestoreError, UnreachableError
from migrrdma_runtime.base.fault_points import Action, around
from migrrdma_runtime.criu import stats
from migrrdma_runtime.shim import child, prepare, staged
from migrrdma_runtime.shim.criu_run import CriuRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Invocation
    from migrrdma_runtime.wire.runtime_client import Agent


_UNKNOWN = (
    "its processes go on, and are the only copy, but the low-level runtime failed after CRIU had let them go, and no "
    "engine knows them: `migrrdma status` shows them"
)


class RestoreOptions:
    """What ``restore`` was asked, as far as it matters to us."""

    def __init__(self, invocation: "Invocation") -> None:
        self.container_id = invocation.container_id
        self.detach = invocation.flag("d", "detach")


def run(invocation: "Invocation", runtime: str, config: "Config", *, adopts: bool = False) -> "NoReturn":
    """Run a restore to its end; never returns.

    ``adopts``: it answers a ``create``, whose ``start`` will say that the container goes on (``shim/staged.py``).
    """
    options = RestoreOptions(invocation)
    link = "" if adopts else staged.which(config, options.container_id)
    restoration = CriuRun(invocation, runtime, config)
    if restoration.facts.has_guest or prepare.is_moved(invocation):
        status = _restore_with_connections(options, restoration, config)
    else:
        status = restoration.perform()
        if status:
            restoration.kill_remains()
    if not status:
        staged.forget(config, options.container_id, link)
    child.end_like(status)


def _restore_with_connections(options: RestoreOptions, restoration: CriuRun, config: "Config") -> int:
    """Claim, restore, report; returns the low-level runtime's wait status."""
    from migrrdma_runtime.wire import manifest, runtime_client

    document = manifest.read(restoration.images)
    if document is None:
        return restoration.perform()
    if not options.detach:
        raise RestoreError(
            f"restore of {options.container_id}: a container with RDMA connections can only be restored with "
            "--detach: they are made again once the low-level runtime has returned"
        )
    with runtime_client.connect(config.run_dir) as agent:
        with around(Action.RUNTIME_ASK_RESTORE, AgentError):
            migration = agent.restore(options.container_id, document)
        status = 1
        failure: BaseException | None = None
        start = time.time()
        if config.late_commit:
            # What our plugin asks in CRIU, which inherits it: whether what it holds may go on (criu_plugin/agent.h).
            os.environ["MIGRRDMA_LATE_MIGRATION"] = migration
            os.environ["MIGRRDMA_LATE_RUNTIME"] = str(os.getpid())
            os.environ["MIGRRDMA_LATE_SOCKET"] = f"{config.run_dir}/{paths.RUNTIME_SOCKET}"
        try:
            with around(Action.RUNTIME_RESTORE, RestoreError):
                status = restoration.perform()
        except BaseException as error:  # noqa: BLE001 (raised again, unless what was restored goes on)
            failure = error
        if status or failure is not None:
            is_committed = _report_failure(agent, migration, restoration)
            if is_committed:
                how = f"what came after that failed: {failure}" if failure else _UNKNOWN
                restoration.warn(f"container {options.container_id} was restored and is committed; {how}")
            elif failure is not None:
                raise failure
            return status
        try:
            with around(Action.RUNTIME_REPORT_RESTORE, UnreachableError):
                result = agent.report_restored(migration, steps=stats.restore_steps(restoration.work, start))
        except MigrRDMAError as error:
            if error.released:
                _kill(restoration)  # before it runs on without its connections
                raise
            # It may be committed, and then this is the only copy there is.
            restoration.warn(f"container {options.container_id} was restored, but {error}")
            return status
        if result["lost"]:
            restoration.warn(
                f"container {options.container_id} was restored, and finds {len(result['lost'])} of its connections "
                f"broken: {'; '.join(result['lost'][:8])}"
            )
        return status


def _report_failure(agent: "Agent", migration: str, restoration: CriuRun) -> bool:
    """Tell the agent that it failed; whether it was too late for that, since CRIU had let go what was committed."""
    is_committed, released = False, False
    try:
        with around(Action.RUNTIME_REPORT_FAILED_RESTORE, AgentError):
            is_committed, released = _outcome(agent, migration)
    except AgentError:  # one that is planted
        pass
    if released:
        _kill(restoration)  # it may have been restored before it failed
    return is_committed


def _outcome(agent: "Agent", migration: str) -> tuple[bool, bool]:
    """Whether it is committed, and whether it was given back, which the agent says by an error.

    Why it failed has been said, or is being raised; that the agent knows it as a failure too is not news.
    """
    try:
        agent.report(migration, succeeded=False)
    except MigrRDMAError as error:
        return False, error.released
    return True, False


def _kill(restoration: CriuRun) -> None:
    with around(Action.RUNTIME_KILL_RESTORED, RestoreError):
        restoration.kill_restored()
