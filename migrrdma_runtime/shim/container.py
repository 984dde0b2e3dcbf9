"""The container of an invocation, under the low-level runtime's other subcommands."""

import contextlib
import os

from migrrdma_runtime.base.errors import CheckpointError
from migrrdma_runtime.shim import child, cut_off, freezer, left_root, let_go, lowlevel, processes, silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrrdma_runtime.shim.argv import Invocation


class LowLevelContainer:
    """The container, as the low-level runtime of the invocation's ``--root`` knows it."""

    def __init__(self, invocation: "Invocation", runtime: str) -> None:
        self._invocation = invocation
        self._runtime = runtime
        self._folder = lowlevel.folder(invocation, runtime)

    def run(self, subcommand: str, *options: str) -> bool:
        """Run ``runc SUBCOMMAND`` on it, silently; whether it succeeded."""
        root = self._invocation.globals.get("root")
        arguments = [
            *(["--root", root] if root else []),
            subcommand,
            *options,
            self._invocation.container_id,
        ]
        with open(os.devnull, "wb") as nowhere:
            return child.run(self._runtime, arguments, nowhere.fileno()) == 0

    def kill_silently(self) -> None:
        """Remove it, and let nobody whom it has TCP connections to know."""
        silence.silence(self._folder)
        left_root.detach(self._invocation, self._runtime)
        self.run("delete", "--force")

    def frozen(self) -> "list[str]":
        """Its cgroups that are frozen, or those above them: it is paused."""
        first = processes.first_process(self._folder)
        return freezer.closed(first) if first else []

    def let_go(self, frozen_before: "list[str]") -> None:
        """Take back what a CRIU that has died had done to it; it stays frozen where it was before."""
        let_go.let_go(self._folder, frozen_before)

    def stand_still(self) -> None:
        """Freeze it, and have its kernel answer nobody in its place; `CheckpointError`: it goes on as it did."""
        cut_off.cut_off(self._folder)
        if not self.run("pause"):
            cut_off.let_in(self._folder)
            raise CheckpointError(
                f"checkpoint of {self._invocation.container_id}: the container cannot be frozen: is it paused?"
            )

    def mark_what_devices_wrote(self) -> None:
        """Have CRIU see it, which takes the rest from an earlier round's images; it must stand still."""
        from migrrdma_runtime.shim import nic_writes

        first = processes.first_process(self._folder)
        nic_writes.mark(processes.members(self._folder, first) if first else ())

    def go_on(self) -> None:
        """Undo `stand_still`."""
        cut_off.let_in(self._folder)
        self.run("resume")

    @contextlib.contextmanager
    def thawed(self) -> "Iterator[None]":
        """Let a paused container run meanwhile: a frozen process can neither drain nor go on.

        containerd pauses a task before it has the runtime checkpoint it, and resumes it afterwards
        (``task.Checkpoint`` in its client), so it must find it paused again.
        """
        paused = self.run("resume")
        try:
            yield
        finally:
            if paused:
                self.run("pause")
