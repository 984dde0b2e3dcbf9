"""Be told of CRIU's death while what it traces still stands, and what it has made is still its own.

The tracees of a tracer that is killed run on at once, and what CRIU has done to them (``let_go``) is what their next
system call meets. A process that dies stops in one last place, ``PTRACE_EVENT_EXIT`` (ptrace(2)), before the kernel
releases its tracees (``do_exit``: ``ptrace_event`` comes before ``exit_notify``). So CRIU itself is traced, and in that
stop what it has done is taken back, or what it has restored is noted (``restored``).

Our plugin in CRIU says which process that is, by a pipe of ours that root alone can open (criu_plugin/death_watch.h);
without it CRIU is not watched. In a restore it says by the same pipe that it lets go what it has held until the commit.
A second SIGKILL ends the stop early; so does our own end.
"""

import os
import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

VARIABLE = "MIGRRDMA_DEATH_WATCH"
"""In CRIU's environment: the pipe to write to and the one to read from, ``PID FD FD``."""

_SEIZE, _CONTINUE, _LISTEN, _GET_EVENT_MESSAGE = 0x4206, 7, 0x4208, 0x4201
_OPTION_EXIT = 0x40
_EVENT_EXIT, _EVENT_STOP = 6, 128
"""``linux/ptrace.h``."""
_WALL = 0x40000000
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_MAX_BYTES = 32


class DeathWatch:
    """For one run of CRIU.

    ``with DeathWatch(at_death) as watch:`` starts it with ``watch.begin`` once CRIU's ancestor was forked.
    """

    def __init__(self, at_death: "Callable[[int, bool], None]") -> None:
        """``at_death``: called in a thread when CRIU is dying of a signal; what it traces stands.

        With CRIU's number, and whether it had said that what it has restored goes on.
        """
        self._at_death = at_death
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
        import ctypes

        ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        ptrace.restype = ctypes.c_long
        ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

        def ask(request: int, data: int = 0) -> None:
            if ptrace(request, pid, None, data) < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))

        try:
            ask(_SEIZE, _OPTION_EXIT)
        finally:
            os.write(self._heard_by_criu, b"\n")
            os.close(self._heard_by_criu)
        while True:
            _, status = os.waitpid(pid, _WALL)
            if not os.WIFSTOPPED(status):
                return
            event, number = status >> 16, os.WSTOPSIG(status)
            if event == _EVENT_EXIT:
                how = ctypes.c_ulong()
                ask(_GET_EVENT_MESSAGE, ctypes.addressof(how))
                if os.WIFSIGNALED(how.value):
                    self._at_death(pid, self._has_let_go())
            # A signal on its way is delivered; a stop of the whole process is one.
            ask(
                _LISTEN if event == _EVENT_STOP and number in _STOPS else _CONTINUE,
                0 if event else number,
            )
