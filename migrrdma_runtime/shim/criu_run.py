"""Let the low-level runtime have CRIU dump or restore a container, and explain why CRIU refused if it did.

What reaches a user through Docker is one line: of a failed checkpoint the *first* line on stderr, of a failed
restore the *last* error in the ``--log`` file. runc says there no more than "criu failed: type DUMP errno 1".
"""

import os

from migrrdma_runtime.base.errors import CheckpointError, MigrRDMAError, RestoreError
from migrrdma_runtime.criu import cgroup_yard
from migrrdma_runtime.criu.log import CriuLog
from migrrdma_runtime.shim import child, facts, runtime_log
from migrrdma_runtime.shim.container import LowLevelContainer
from migrrdma_runtime.shim.restored import Restored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.base.config import Config
    from migrrdma_runtime.shim.argv import Invocation


class CriuRun:
    """One dump or restore: where it works, what is known of its container, and how to have it done."""

    def __init__(self, invocation: "Invocation", runtime: str, config: "Config") -> None:
        self.facts = facts.look_up(invocation, runtime)
        self.container = LowLevelContainer(invocation, runtime)
        self.images = os.path.abspath(invocation.value("image-path") or "checkpoint")
        """Where CRIU's images are, by runc's default: ``checkpoint`` in the working directory."""
        self.work = os.path.abspath(invocation.value("work-path") or self.images)
        """Where CRIU writes its log and its statistics."""
        self._invocation = invocation
        self._runtime = runtime
        self._restored = Restored()
        self._args = invocation.args
        if config.tcp_established and self.facts.has_own_network and not invocation.option("tcp-established"):
            self._args = invocation.with_flag("--tcp-established")

    def perform(self) -> int:
        """Have the low-level runtime do it, explain it if it failed, and return its wait status."""
        with cgroup_yard.removed(self.work):
            return self._perform()

    def _perform(self) -> int:
        log = CriuLog(self._log_path())
        said_before = self._size_of_log()
        # With --log, runc is silent on stderr but for its last words. For these to come second in a failed
        # checkpoint they are held back, in a file: a pipe would have to be read while the runtime runs.
        held_back = None
        if self._invocation.command == "checkpoint" and self._invocation.globals.get("log"):
            held_back = os.memfd_create("migrrdma-stderr")
        status = self._run(held_back)
        if status:
            explanation = self._explain(log, said_before)
            if explanation:
                runtime_log.error(self._invocation, str(explanation))
        if held_back is not None:
            _copy(held_back, 2)
        return status

    def _run(self, stderr: int | None) -> int:
        from migrrdma_runtime.shim.death_watch import DeathWatch

        if self._invocation.command != "checkpoint":
            with DeathWatch(self._restored.note, self._restored.meet) as watch:
                return child.run(self._runtime, self._args, stderr, watch.begin)
        frozen = self.container.frozen()
        with DeathWatch(lambda _criu, _: self.container.let_go(frozen)) as watch:
            status = child.run(self._runtime, self._args, stderr, watch.begin)
        if status:
            self.container.let_go(frozen)  # of a CRIU that was not watched
        return status

    def kill_remains(self) -> None:
        """End what a CRIU has left that died in a restore; the low-level runtime knows nothing of it."""
        self._restored.kill()

    def kill_restored(self) -> None:
        """End what a restore in vain has left, and let nobody whom it has TCP connections to know."""
        self.container.kill_silently()
        self.kill_remains()

    def warn(self, message: str) -> None:
        """Say in the low-level runtime's log what is wrong although the dump or restore itself has succeeded."""
        runtime_log.warn(self._invocation, message)

    def has_dumped(self, since: float) -> bool:
        """Whether CRIU has dumped everything since then: the inventory is the last image that it finishes."""
        try:
            return os.stat(os.path.join(self.images, "inventory.img")).st_mtime >= since - 1
        except OSError:
            return False

    def _explain(self, log: CriuLog, said_before: int) -> MigrRDMAError | None:
        """Why CRIU failed, in one line; nothing when the failure was not CRIU's."""
        criu_config = self.facts.criu_config
        if errors := log.errors():
            reason = f"{'; '.join(errors)} (CRIU's log: {log.path})"
        elif criu_config and b"criu failed" in self._said_since(said_before):
            # An option that CRIU does not know ends it before it opens its log.
            reason = (
                f"CRIU gave no reason in {log.path}; an unknown option in {criu_config} is one it cannot log"
            )
        else:
            return None
        command = self._invocation.command
        kind = CheckpointError if command == "checkpoint" else RestoreError
        return kind(f"{command} of {self._invocation.container_id} failed: {reason}")

    def _log_path(self) -> str:
        """Where CRIU will write its log: in the working directory, which is the images' unless given."""
        name = "dump.log" if self._invocation.command == "checkpoint" else "restore.log"
        return os.path.abspath(os.path.join(self.work, _configured_log(self.facts.criu_config) or name))

    def _size_of_log(self) -> int:
        try:
            return os.stat(self._invocation.globals.get("log", "")).st_size
        except OSError:
            return 0

    def _said_since(self, offset: int) -> bytes:
        """What the low-level runtime has added to its ``--log``."""
        try:
            with open(self._invocation.globals.get("log", ""), "rb") as file:
                file.seek(offset)
                return file.read()
        except OSError:
            return b""


def _configured_log(criu_config: str) -> str:
    """What ``log-file`` says in CRIU's configuration, which overrides what runc asks for."""
    try:
        with open(criu_config, encoding="utf-8", errors="replace") as file:
            lines = [line.split(None, 1) for line in file]
    except OSError:
        return ""
    values = [words[1].strip().strip('"') for words in lines if len(words) == 2 and words[0] == "log-file"]
    return values[-1] if values else ""


def _copy(source: int, target: int) -> None:
    os.lseek(source, 0, os.SEEK_SET)
    while data := os.read(source, 1 << 16):
        os.write(target, data)
