"""``checkpoint``: have the low-level runtime dump a container, with its RDMA connections if it holds any.

The agent of this host does what comes before and after (``agent/roles/source.py``); here is what only the runtime
can do: dump, and keep the manifest beside CRIU's images. Nothing is dumped that was not drained.
"""

import contextlib
import os
import time

from migrrdma_runtime.base.errors import AgentError, CheckpointError, MigrRDMAError, UnreachableError
from migrrdma_runtime.base.fault_points import Action, around
from migrrdma_runtime.criu import stats
from migrrdma_runtime.shim import auto_remove, child
from migrrdma_runtime.shim.criu_run import CriuRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Invocation
    from migrrdma_runtime.wire.runtime_client import Agent

    Message = dict[str, Any]

_PARTIAL = ("pre-dump", "parent-path", "lazy-pages")
"""Options that leave memory out which the dirty tracking says is known, or send it later."""

_PROOF_S = 30
"""For so long each process stands still at most, until it holds nothing that its guest needs in a restore."""


class CheckpointOptions:
    """What ``checkpoint`` was asked, as far as it matters to us."""

    def __init__(self, invocation: "Invocation") -> None:
        self.container_id = invocation.container_id
        self.move = os.environ.pop("MIGRRDMA_MOVE", "")
        """The move whose step it is, if it is one of a move: what is dumped stays then, frozen (mover/departure.py)."""
        self.only_for = os.environ.pop("MIGRRDMA_MOVE_TO", "")
        """The agent that may restore it."""
        self.leave_running = invocation.flag("leave-running") and not self.move
        """Whether it goes on whatever comes; of a move that is not so before the move has come to nothing."""
        self.partial = [f"--{name}" for name in _PARTIAL if invocation.flag(name)]
        self.is_round = bool(self.move) and self.partial[:1] == ["--pre-dump"]
        """Of a move, only what its memory holds now, while it goes on running."""
        self.follows_rounds = bool(self.move) and self.partial == ["--parent-path"]


def run(invocation: "Invocation", runtime: str, config: "Config") -> "NoReturn":
    """Run a checkpoint to its end; never returns."""
    options = CheckpointOptions(invocation)
    if options.move:
        config.tcp_established = (
            False  # a move's are kept only where its user wants that, which the call says
        )
    dump = CriuRun(invocation, runtime, config)
    if options.is_round:
        child.end_like(dump.perform())
    if dump.facts.has_guest or options.move:
        child.end_like(_dump_with_connections(options, dump, config))
    child.end_like(dump.perform())


def _dump_with_connections(options: CheckpointOptions, dump: CriuRun, config: "Config") -> int:
    """Quiesce, dump, report; returns the low-level runtime's wait status."""
    from migrrdma_runtime.wire import manifest, runtime_client

    if options.partial and not options.follows_rounds:
        # The NIC's writes escape dirty tracking (docs/criu.md): old bytes would be restored, silently.
        raise CheckpointError(
            f"checkpoint of {options.container_id}: {options.partial[0]} cannot be used with a container that may "
            "hold RDMA connections, because a NIC's writes escape CRIU's dirty tracking; dump it whole"
        )
    if (
        not options.leave_running
        and not options.move
        and auto_remove.takes_checkpoint_along(dump.facts.docker_folder)
    ):
        raise CheckpointError(
            f"checkpoint of {options.container_id}: the container was started with --rm, so Docker would remove it "
            "when the dump ends it, and this checkpoint with it: put it elsewhere with --checkpoint-dir"
        )
    if options.move and dump.container.frozen():
        # containerd does not pause it for a move: a person has, and is to let it go on.
        raise CheckpointError(f"checkpoint of {options.container_id}: the container is paused")
    with runtime_client.connect(config.run_dir) as agent:
        with dump.container.thawed(), around(Action.RUNTIME_ASK_CHECKPOINT, AgentError):
            ready = agent.checkpoint(
                options.container_id,
                leave_running=options.leave_running,
                move=options.move,
                only_for=options.only_for,
            )
        if ready is None:
            return dump.perform()
        status = 1
        kept = ""
        stands_still = False
        failure: BaseException | None = None
        start = time.time()
        if config.late_commit:
            # For our plugin in CRIU (criu_plugin/rehearsal.h).
            os.environ["MIGRRDMA_LATE_REHEARSAL"] = str(_PROOF_S)
        try:
            # Before the dump, which ends the container: a disk that is full must be found out by then.
            os.makedirs(dump.images, mode=0o700, exist_ok=True)
            kept = _prepare_to_keep(options, dump, ready)
            with around(Action.RUNTIME_WRITE_MANIFEST):
                manifest.write(dump.images, ready["manifest"])
            if options.move:
                dump.container.stand_still()
                stands_still = True
            if options.follows_rounds:
                dump.container.mark_what_devices_wrote()
            with around(Action.RUNTIME_DUMP):
                status = dump.perform()
                if not status:
                    _keep(kept, dump)
        except OSError as error:
            failure = CheckpointError(f"cannot dump into {dump.images}: {error.strerror}")
        except BaseException as error:  # noqa: BLE001 (raised again, once it is known that the container lives)
            failure = error
        if stands_still and (status or failure is not None):
            dump.container.go_on()  # first, for it to hear that it is to go on
        if status and not _is_in_the_image(dump, agent, ready["migration"], start):
            with around(Action.RUNTIME_REMOVE_MANIFEST, CheckpointError):
                manifest.remove(dump.images)
            if failure is not None:
                raise failure
            return status
        if status:
            _keep(kept, dump)
        if status or failure is not None:
            why = f": {failure}" if failure else ""
            dump.warn(
                f"container {options.container_id} was dumped and has ended; what came after that failed{why}"
            )
        _say_that_it_succeeded(options, dump, agent, ready, start)
        return 0


def _prepare_to_keep(options: CheckpointOptions, dump: CriuRun, ready: "Message") -> str:
    """Where images are kept that their engine may delete although the application has ended; empty for others."""
    from migrrdma_runtime.wire import kept_images

    pointer = ready.get("kept", "")  # an agent of before this names none
    if not pointer or options.leave_running or options.move or not kept_images.are_the_engines(dump.images):
        return ""
    return kept_images.prepare(pointer, dump.images)


def _keep(folder: str, dump: CriuRun) -> None:
    """Keep them, if they are to be; that they are not is no failure of the dump."""
    from migrrdma_runtime.wire import kept_images

    if not folder:
        return
    try:
        kept_images.keep(folder, dump.images)
    except OSError as error:
        dump.warn(f"the images are not kept in {folder}, should containerd lose them: {error}")


def _is_in_the_image(dump: CriuRun, agent: "Agent", migration: str, start: float) -> bool:
    """Report that the dump failed, which is a success if all processes have ended and CRIU has written everything."""
    try:
        with dump.container.thawed(), around(Action.RUNTIME_REPORT_FAILED_DUMP, AgentError):
            result = agent.report(migration, succeeded=False)
    except MigrRDMAError:
        return (
            False  # the low-level runtime has said why it failed, and the agent finds out that we have ended
        )
    return bool(result.get("parked")) and dump.has_dumped(start)


def _say_that_it_succeeded(
    options: CheckpointOptions, dump: CriuRun, agent: "Agent", ready: "Message", start: float
) -> None:
    """Have the images on the disk, and the agent know of them now or when it is back.

    Whatever goes wrong here, the checkpoint has succeeded: the images of one that "fails" are deleted by Docker, of an
    application that has ended.
    """
    from migrrdma_runtime.wire import dump_outcome

    steps, written = stats.dump_steps(dump.work, start), False
    try:
        if not options.move:  # of which the application is here, and the images end with the boot
            with around(Action.RUNTIME_SYNC_IMAGES):
                dump_outcome.sync_tree(dump.images)
        with around(Action.RUNTIME_WRITE_OUTCOME):
            dump_outcome.write(ready["outcome"], steps)
        written = True
    except OSError as error:
        dump.warn(
            f"container {options.container_id} was dumped, but whether a power failure would spare the "
            f"images is not known: {error}"
        )
    try:
        thawed = dump.container.thawed() if options.leave_running else contextlib.nullcontext()
        with thawed, around(Action.RUNTIME_REPORT_DUMP, UnreachableError):
            agent.report(ready["migration"], succeeded=True, steps=steps, again=not written)
    except MigrRDMAError as error:
        dump.warn(f"container {options.container_id} was dumped, but {error}")
