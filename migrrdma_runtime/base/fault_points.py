"""Every place at which a migration may be struck: before and after each durable write, message and external command.

An :class:`Action` is one of those; each has two points, its :class:`Moment` before and after. A point is *armed* by a
file of its name in :data:`FOLDER`, which only root can write to; the file says what happens there, once, and is removed
first. A point that is not armed costs one system call that finds nothing. There are points only where a migration is
conducted: none in a container's start, none in a data path. docs/failures.md lists them;
tests/fast/test_failure_matrix.py strikes at every one.

The OCI runtime imports this when it dumps or restores: nothing heavy here.
"""

import contextlib
import errno
import os
import signal
import time
from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = "/run/migrrdma/faults"
"""``ACTION.MOMENT``, holding ``KIND`` or ``KIND SECONDS``. In no container; it ends with the boot."""

GUEST_FOLDER = "/var/lib/migrrdma/guest/faults"
"""Likewise for guests: read-only in containers, so that a file stays. It holds a number before the kind, and strikes a
process once; a delay is in milliseconds, and nobody is held."""

HELD = ".held"
"""The ending of the file that says that a process is held at a point; it goes on when the file is gone."""

HELD_MOST_S = 120.0
_LOOK_S = 0.01
_MAX_BYTES = 64


class Kind(Enum):
    """What happens at a point."""

    KILL = "kill"
    """The process dies at once, by SIGKILL."""
    ERROR = "error"
    """The action fails: EIO. Afterwards: it was done, and counts as failed."""
    DELAY = "delay"
    """The whole process stands still for some seconds."""
    HOLD = "hold"
    """It stands still until somebody has done something to the host: cut its network, filled its disk, cut its power,
    let its clock jump."""


class Moment(Enum):
    """Before the action or after it."""

    BEFORE = "before"
    AFTER = "after"


class Action(Enum):
    """A durable write, a message or an external command of a migration."""

    # The agent's database, one for each state of each role (agent/roles/states.py), and what is noted besides.
    STORE_SOURCE_SUSPENDING = "store.source.suspending"
    STORE_SOURCE_DUMPING = "store.source.dumping"
    STORE_SOURCE_PARKED = "store.source.parked"
    STORE_SOURCE_CLAIMED = "store.source.claimed"
    STORE_SOURCE_COMMITTED = "store.source.committed"
    STORE_SOURCE_DONE = "store.source.done"
    STORE_SOURCE_ABANDONED = "store.source.abandoned"
    STORE_SOURCE_UNDONE = "store.source.undone"
    NOTE_SOURCE = "note.source"
    STORE_DESTINATION_RESTORING = "store.destination.restoring"
    STORE_DESTINATION_COMMITTING = "store.destination.committing"
    STORE_DESTINATION_COMMITTED = "store.destination.committed"
    STORE_DESTINATION_DONE = "store.destination.done"
    STORE_DESTINATION_RELEASED = "store.destination.released"
    NOTE_DESTINATION = "note.destination"
    STORE_PARTNER_SUSPENDED = "store.partner.suspended"
    STORE_PARTNER_PREPARED = "store.partner.prepared"
    STORE_PARTNER_SWITCHED = "store.partner.switched"
    STORE_PARTNER_UNDONE = "store.partner.undone"
    STORE_PARTNER_LOST = "store.partner.lost"
    NOTE_PARTNER = "note.partner"

    # Agent to agent (wire/agent_messages.py): at the agent that asks, and at the one that answers.
    ASK_HELLO = "ask.hello"
    ASK_SUSPEND = "ask.suspend"
    ASK_DRAIN = "ask.drain"
    ASK_UNDO = "ask.undo"
    ASK_CLAIM = "ask.claim"
    ASK_COMMIT = "ask.commit"
    ASK_RELEASE = "ask.release"
    ASK_FINISH = "ask.finish"
    ASK_CONFIRM = "ask.confirm"
    ASK_PREPARE = "ask.prepare"
    ASK_RETRACT = "ask.retract"
    ASK_SWITCH = "ask.switch"
    ASK_OUTCOME = "ask.outcome"
    ASK_HOLDING = "ask.holding"
    ANSWER_HELLO = "answer.hello"
    ANSWER_SUSPEND = "answer.suspend"
    ANSWER_DRAIN = "answer.drain"
    ANSWER_UNDO = "answer.undo"
    ANSWER_CLAIM = "answer.claim"
    ANSWER_COMMIT = "answer.commit"
    ANSWER_RELEASE = "answer.release"
    ANSWER_FINISH = "answer.finish"
    ANSWER_CONFIRM = "answer.confirm"
    ANSWER_PREPARE = "answer.prepare"
    ANSWER_RETRACT = "answer.retract"
    ANSWER_SWITCH = "answer.switch"
    ANSWER_OUTCOME = "answer.outcome"
    ANSWER_HOLDING = "answer.holding"

    # Agent to guest (guest/wire/control.h), at the agent.
    TELL_INVENTORY = "tell.INVENTORY"
    TELL_LIST_CONTEXTS = "tell.LIST_CONTEXTS"
    TELL_LIST_QPS = "tell.LIST_QPS"
    TELL_LIST_MRS = "tell.LIST_MRS"
    TELL_LIST_ADDRESSES = "tell.LIST_ADDRESSES"
    TELL_QUIESCE = "tell.QUIESCE"
    TELL_UNDO = "tell.UNDO"
    TELL_PARK = "tell.PARK"
    TELL_REBUILD = "tell.REBUILD"
    TELL_PREPARE = "tell.PREPARE"
    TELL_CONNECT = "tell.CONNECT"
    TELL_KEYS = "tell.KEYS"
    TELL_PLACES = "tell.PLACES"
    TELL_RESUME = "tell.RESUME"
    CALL_GUEST = "call.guest"
    """The file that has a parked guest connect."""

    # Agent to OCI runtime.
    SAY_READY = "say.ready"
    SAY_DONE = "say.done"
    SAY_ERROR = "say.error"
    FORGET_OUTCOME = "forget.outcome"
    """Removing the file by which the runtime has said that a dump succeeded."""

    # The OCI runtime's ``checkpoint`` and ``restore``.
    RUNTIME_ASK_CHECKPOINT = "runtime.ask.checkpoint"
    RUNTIME_WRITE_MANIFEST = "runtime.write.manifest"
    RUNTIME_DUMP = "runtime.dump"
    """The low-level runtime's ``checkpoint``."""
    RUNTIME_SYNC_IMAGES = "runtime.sync.images"
    RUNTIME_WRITE_OUTCOME = "runtime.write.outcome"
    RUNTIME_REPORT_DUMP = "runtime.report.dump"
    RUNTIME_REPORT_FAILED_DUMP = "runtime.report.failed.dump"
    RUNTIME_REMOVE_MANIFEST = "runtime.remove.manifest"
    RUNTIME_ASK_RESTORE = "runtime.ask.restore"
    RUNTIME_RESTORE = "runtime.restore"
    """The low-level runtime's ``restore``."""
    RUNTIME_REPORT_RESTORE = "runtime.report.restore"
    RUNTIME_REPORT_FAILED_RESTORE = "runtime.report.failed.restore"
    RUNTIME_KILL_RESTORED = "runtime.kill.restored"
    """The low-level runtime's ``delete`` of what was restored in vain."""

    # CRIU's plugin (criu_plugin/fault_points.h), whose points are armed in the same folder.
    PLUGIN_ASK_WATCH = "plugin.ask.watch"
    """Having the runtime watch over CRIU."""
    PLUGIN_CREATE_IMAGE = "plugin.create.image"
    PLUGIN_WRITE_FILE = "plugin.write.file"
    PLUGIN_LOAD_IMAGE = "plugin.load.image"

    # The guest library (guest/control/fault.h), whose points are armed in :data:`GUEST_FOLDER`.
    GUEST_INVENTORY = "guest.INVENTORY"
    GUEST_LIST_CONTEXTS = "guest.LIST_CONTEXTS"
    GUEST_LIST_QPS = "guest.LIST_QPS"
    GUEST_LIST_MRS = "guest.LIST_MRS"
    GUEST_LIST_ADDRESSES = "guest.LIST_ADDRESSES"
    GUEST_QUIESCE = "guest.QUIESCE"
    GUEST_UNDO = "guest.UNDO"
    GUEST_PARK = "guest.PARK"
    GUEST_REBUILD = "guest.REBUILD"
    GUEST_PREPARE = "guest.PREPARE"
    GUEST_CONNECT = "guest.CONNECT"
    GUEST_KEYS = "guest.KEYS"
    GUEST_PLACES = "guest.PLACES"
    GUEST_RESUME = "guest.RESUME"

    # CRIU's plugin, where a restore is committed before the application goes on (docs/criu.md).
    PLUGIN_PROVE = "plugin.prove"
    """Proving at the dump that the guests can be restored alone."""
    PLUGIN_ASK_COMMIT = "plugin.ask.commit"
    """Having the guests connect before the application goes on, until the agent's decision."""

    # A checkpoint whose host is gone (agent/roles/adoption.py).
    STORE_SOURCE_ADOPTING = "store.source.adopting"
    STORE_SOURCE_SUPERSEDED = "store.source.superseded"
    ASK_PARKED = "ask.parked"
    ANSWER_PARKED = "answer.parked"
    ASK_ADOPT = "ask.adopt"
    ANSWER_ADOPT = "answer.adopt"


def name_of(action: Action, moment: Moment) -> str:
    """A point's name, as its file and docs/failures.md have it."""
    return f"{action.value}.{moment.value}"


def _input_output_error(reason: str) -> Exception:
    return OSError(errno.EIO, reason)


@contextlib.contextmanager
def around(action: Action, error: "Callable[[str], Exception]" = _input_output_error) -> "Iterator[None]":
    """Do an action between its two points; where an error is planted, raise what the action raises when it fails."""
    reach(action, Moment.BEFORE, error)
    yield
    reach(action, Moment.AFTER, error)


def reach(action: Action, moment: Moment, error: "Callable[[str], Exception]" = _input_output_error) -> None:
    """Be struck here if the point is armed."""
    name = name_of(action, moment)
    path = f"{FOLDER}/{name}"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        words = _armed(handle)
    finally:
        os.close(handle)
    if words and _remove(path):
        _strike(name, error, *words)


def _armed(handle: int) -> list[str]:
    """What a point's file says; nothing if anybody but root could have written it."""
    status = os.fstat(handle)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        return []
    return os.read(handle, _MAX_BYTES).decode(errors="replace").split()


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False  # another process was here first: it is struck
    return True


def _strike(name: str, error: "Callable[[str], Exception]", kind: str, seconds: str = "1") -> None:
    if kind == Kind.KILL.value:
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == Kind.ERROR.value:
        raise error(f"an error that was planted at {name}")
    elif kind == Kind.DELAY.value:
        time.sleep(float(seconds))
    elif kind == Kind.HOLD.value:
        _hold(f"{FOLDER}/{name}{HELD}")


def _hold(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    deadline = time.clock_gettime(time.CLOCK_BOOTTIME) + HELD_MOST_S
    while os.path.exists(path) and time.clock_gettime(time.CLOCK_BOOTTIME) < deadline:
        time.sleep(_LOOK_S)  # tests only; nothing tells of a file's end without a library
