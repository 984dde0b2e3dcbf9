"""``checkpoint`` and ``restore``: let the low-level runtime do it, and explain why CRIU refused if it did.

What reaches a user through Docker is one line: of a failed checkpoint the *first* line on stderr, of a failed
restore the *last* error in the ``--log`` file. runc says there no more than "criu failed: type DUMP errno 1".
"""

import os

from migrrdma_runtime.base.errors import CheckpointError, MigrRDMAError, RestoreError
from migrrdma_runtime.criu.log import CriuLog
from migrrdma_runtime.shim import child, runtime_log
from migrrdma_runtime.shim import facts as container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Call


def run(call: "Call", runtime: str, settings: "Config") -> "NoReturn":
    """Run a checkpoint or a restore to its end; never returns."""
    facts = container.of(call, runtime)
    if settings.tcp_established and facts.has_own_network and not call.option("tcp-established"):
        call.insert_flag("--tcp-established")
    if facts.has_guest:
        from migrrdma_runtime import migration

        child.end_like(migration.run(call, runtime, settings, lambda: _perform(call, runtime, facts)))
    child.end_like(_perform(call, runtime, facts))


def _perform(call: "Call", runtime: str, facts: container.Facts) -> int:
    """Have the low-level runtime do it, explain it if it failed, and return its wait status."""
    log = CriuLog(_log_path(call, facts.criu_config))
    said_before = _log_size(call)
    # With --log, runc is silent on stderr but for its last words. For these to come second in a failed
    # checkpoint they are held back, in a file: a pipe would have to be read while the runtime runs.
    held_back = None
    if call.command == "checkpoint" and call.globals.get("log"):
        held_back = os.memfd_create("migrrdma-stderr")
    status = child.run(runtime, call.args, held_back)
    if status:
        explanation = _explain(call, log, facts.criu_config, said_before)
        if explanation:
            runtime_log.error(call, str(explanation))
    if held_back is not None:
        _copy(held_back, 2)
    return status


def _explain(call: "Call", log: CriuLog, criu_config: str, said_before: int) -> MigrRDMAError | None:
    """Why CRIU failed, in one line; nothing when the failure was not CRIU's."""
    if errors := log.errors():
        reason = f"{'; '.join(errors)} (CRIU's log: {log.path})"
    elif criu_config and b"criu failed" in _said_since(call, said_before):
        # An option that CRIU does not know ends it before it opens its log.
        reason = f"CRIU gave no reason in {log.path}; an unknown option in {criu_config} is one it cannot log"
    else:
        return None
    kind = CheckpointError if call.command == "checkpoint" else RestoreError
    return kind(f"{call.command} of {call.container_id} failed: {reason}")


def _log_path(call: "Call", criu_config: str) -> str:
    """Where CRIU will write its log: in the working directory, which is the images' unless given."""
    folder = call.value("work-path") or call.value("image-path") or "checkpoint"
    name = "dump.log" if call.command == "checkpoint" else "restore.log"
    return os.path.abspath(os.path.join(folder, _configured_log(criu_config) or name))


def _configured_log(criu_config: str) -> str:
    """What ``log-file`` says in CRIU's configuration, which overrides what runc asks for."""
    try:
        with open(criu_config, encoding="utf-8", errors="replace") as file:
            lines = [line.split(None, 1) for line in file]
    except OSError:
        return ""
    values = [words[1].strip().strip('"') for words in lines if len(words) == 2 and words[0] == "log-file"]
    return values[-1] if values else ""


def _log_size(call: "Call") -> int:
    try:
        return os.stat(call.globals.get("log", "")).st_size
    except OSError:
        return 0


def _said_since(call: "Call", offset: int) -> bytes:
    """What the low-level runtime has added to its ``--log``."""
    try:
        with open(call.globals.get("log", ""), "rb") as file:
            file.seek(offset)
            return file.read()
    except OSError:
        return b""


def _copy(source: int, target: int) -> None:
    os.lseek(source, 0, os.SEEK_SET)
    while data := os.read(source, 1 << 16):
        os.write(target, data)
