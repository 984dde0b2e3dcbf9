"""Be told of CRIU's death while what it traces still stands, and what it has made is still its own.

The tracees of a tracer that is killed run on at once, and what CRIU has done to them (``let_go``) is what their next
system call meets. A process that dies stops in one last place, ``PTRACE_EVENT_EXIT`` (ptrace(2)), before the kernel
releases its tracees (``do_exit``: ``ptrace_event`` comes before ``exit_notify``). So CRIU itself is traced, and in that
stop what it has done is taken back, or what it has restored is noted (``restored``).

Our plugin in CRIU says which process that is, by a pipe of ours that root alone can open (criu_plugin/death_watch.h);
without it CRIU is not watched. In a restore it says by the same pipe that it lets go what it has held until the commit.
A second SIGKILL ends the stop early; so does our own end.

Every signal to CRIU stops it as well, about thirty times in a restore, most of them at its end. A CRIU that is killed
in such a stop goes from there to its last one: what is meant to end the former may end the latter. So a stop is looked
at right before it is ended. Killed between the two, CRIU dies unseen, and its tracees run on; but it stays a zombie
until we take it, and the low-level runtime, whose children it has made, waits for that: they can still be noted.
"""

import os
import threading

from migrrdma_runtime.shim.tracee import EVENT_EXIT, Tracee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

VARIABLE = "MIGRRDMA_DEATH_WATCH"
"""In CRIU's environment: the pipe to write to and the one to read from, ``PID FD FD``."""

_MAX_BYTES = 32


class DeathWatch:
    """For one run of CRIU.

    ``with DeathWatch(at_death) as watch:`` starts it with ``watch.begin`` once CRIU's ancestor was forked.
    """

    def __init__(
        self, at_death: "Callable[[int, bool], None]", at_begin: "Callable[[int], None]" = lambda _criu: None
    ) -> None:
        """Both are called in a thread, with CRIU's number.

        ``at_death``: it is dying of a signal, or, if that was missed, is a zombie; also told whether CRIU had said that
        what it has restored goes on. ``at_begin``: it waits for us.
        """
        self._at_death = at_death
        self._at_begin = at_begin
        self._said_by_criu, self._to_say = os.pipe()
        self._to_hear, self._heard_by_criu = os.pipe()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "DeathWatch":
        """Let CRIU know where to say that it is there."""
        os.environ[VARIABLE] = f"{os.getpid()} {self._to_say} {self._to_hear}"
        return self

    def begin(self) -> None:
        """Wait for it."""
        self._thread.start()

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """CRIU has ended, or nobody waits for it any more."""
        del os.environ[VARIABLE]
        os.close(self._to_say)  # a CRIU that never spoke has the other end closed by that
        os.close(self._to_hear)

    def _watch(self) -> None:
        try:
            said = os.read(self._said_by_criu, _MAX_BYTES)
            if said:
                self._hold(int(said))
        except (OSError, ValueError):
            return  # it is not watched, or no longer: this thread's end lets it go
        finally:
            os.close(self._said_by_criu)

    def _has_let_go(self) -> bool:
        import select

        more, _, _ = select.select([self._said_by_criu], [], [], 0)
        return bool(more and os.read(self._said_by_criu, _MAX_BYTES))

    def _hold(self, pid: int) -> None:
        try:
            criu = Tracee(pid)
            self._at_begin(pid)
        finally:
            os.write(self._heard_by_criu, b"\n")
            os.close(self._heard_by_criu)
        is_told = False
        while (end := criu.end()) is None:
            stop = criu.stop()
            if stop is None:
                continue
            if stop[0] == EVENT_EXIT and criu.dies_of_signal():
                self._at_death(pid, self._has_let_go())
                is_told = True
            criu.go_on(*stop)
        if end.si_code != os.CLD_EXITED and not is_told:
            self._at_death(pid, self._has_let_go())
        criu.take()
