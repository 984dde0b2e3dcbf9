"""``checkpoint`` and ``restore``: let the low-level runtime do it, and explain why CRIU refused if it did.

What reaches a user through Docker is one line: of a failed checkpoint the *first* line on stderr, of a failed
restore the *last* error in the ``--log`` file. runc says there no more than "criu failed: type DUMP errno 1".
"""

import os

from migrrdma_runtime import child, lowlevel, runtime_log
from migrrdma_runtime.criu_log import CriuLog
from migrrdma_runtime.errors import CheckpointError, MigrRDMAError, RestoreError, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from migrrdma_runtime.argv import Call
    from migrrdma_runtime.config import Config


def run(call: "Call", runtime: str, settings: "Config") -> "NoReturn":
    """Run a checkpoint or a restore to its end; never returns."""
    if settings.tcp_established and not call.option("tcp-established") and _has_own_network(call, runtime):
        call.insert_flag("--tcp-established")
    log = CriuLog(_log_path(call))
    # With --log, runc is silent on stderr but for its last words. For these to come second in a failed
    # checkpoint they are held back, in a file: a pipe would have to be read while the runtime runs.
    held_back = None
    if call.command == "checkpoint" and call.globals.get("log"):
        held_back = os.memfd_create("migrrdma-stderr")
    status = child.run(runtime, call.args, held_back)
    if status:
        explanation = _explain(call, log)
        if explanation:
            runtime_log.error(call, str(explanation))
    if held_back is not None:
        _copy(held_back, 2)
    child.end_like(status)


def _explain(call: "Call", log: CriuLog) -> MigrRDMAError | None:
    """Why CRIU failed, in one line; nothing when the failure was not CRIU's."""
    errors = log.errors()
    if not errors:
        return None
    kind = CheckpointError if call.command == "checkpoint" else RestoreError
    return kind(f"{call.command} of {call.container_id} failed: {'; '.join(errors)} (CRIU's log: {log.path})")


def _log_path(call: "Call") -> str:
    """Where CRIU will write its log: in the working directory, which is the images' unless given."""
    folder = call.value("work-path") or call.value("image-path") or "checkpoint"
    return os.path.abspath(f"{folder}/{'dump' if call.command == 'checkpoint' else 'restore'}.log")


def _has_own_network(call: "Call", runtime: str) -> bool:
    """Whether the container has its own network namespace, from its spec or the runtime's state."""
    from migrrdma_runtime import bundle, create, spec

    if call.command == "restore":
        candidates = [create.spec_path(call)]
    else:
        root = call.globals.get("root") or lowlevel.default_root(runtime)
        candidates = [f"{root}/{call.container_id}/{name}" for name in ("state.json", "config.json")]
    for path in candidates:
        try:
            state, _ = bundle.read(path)
            if isinstance(state, dict):
                return spec.has_own_network(state) or _is_runc_state_with_network(state)
        except SpecError:
            continue  # unreadable: the runtime will say so, or it is the other runtime's name
    return False


def _is_runc_state_with_network(state: dict[str, object]) -> bool:
    """The same question to runc's ``state.json``, which has the configuration in libcontainer's words."""
    config = state.get("config")
    namespaces = config.get("namespaces") if isinstance(config, dict) else None
    return isinstance(namespaces, list) and any(
        isinstance(entry, dict) and entry.get("type") == "NEWNET" for entry in namespaces
    )


def _copy(source: int, target: int) -> None:
    os.lseek(source, 0, os.SEEK_SET)
    while data := os.read(source, 1 << 16):
        os.write(target, data)
