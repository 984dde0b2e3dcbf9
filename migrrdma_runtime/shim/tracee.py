"""A process that one of our threads traces (ptrace(2)): where it stands, and how it goes on."""

import errno
import os
import signal

EVENT_EXIT = 6
"""It dies, and all that it has is still its own."""

_EVENT_STOP = 128
_SEIZE, _CONTINUE, _LISTEN, _GET_EVENT_MESSAGE, _GET_SIGNAL_INFO = 0x4206, 7, 0x4208, 0x4201, 0x4202
_OPTION_EXIT = 0x40
"""``linux/ptrace.h``."""
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_ENDS = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)
_WALL = 0x40000000
_SIGNAL_INFO_INTS = 32


class Tracee:
    """Made and asked by one thread, whose end lets the process go."""

    def __init__(self, pid: int) -> None:
        import ctypes

        self._pid = pid
        self._ctypes = ctypes
        # PyDLL: no other thread of ours runs between a look at a stop and what ends it.
        self._ptrace = ctypes.PyDLL(None, use_errno=True).ptrace
        self._ptrace.restype = ctypes.c_long
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._ask(_SEIZE, _OPTION_EXIT)

    def end(self) -> "os.waitid_result | None":
        """Wait until it stands or has ended; in that case how, as by ``waitid``.

        It stays a zombie, of whose end its parent does not hear, until `take` (``wait_consider_task`` in the kernel).
        """
        seen = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | _WALL)
        return seen if seen and seen.si_code in _ENDS else None

    def take(self) -> None:
        """Let its parent hear of its end."""
        os.waitpid(self._pid, _WALL)

    def stop(self) -> "tuple[int, int] | None":
        """The event and the signal of the stop that it stands in now; event 0: the signal is on its way to it.

        None: it stands no more, for it was killed. What was waited for is no answer to this: a SIGKILL takes a process
        out of any stop but its last, and into that.
        """
        info = (self._ctypes.c_int * _SIGNAL_INFO_INTS)()
        if not self._ask_standing(_GET_SIGNAL_INFO, self._ctypes.addressof(info)):
            return None
        number, code = info[0], info[2]
        return (code >> 8 if code > 0xFF else 0), number

    def dies_of_signal(self) -> bool:
        """Whether what it is about to end of is a signal; it stands in ``EVENT_EXIT``."""
        how = self._ctypes.c_ulong()
        self._ask(_GET_EVENT_MESSAGE, self._ctypes.addressof(how))
        return os.WIFSIGNALED(how.value)

    def go_on(self, event: int, number: int) -> None:
        """End that stop. A signal on its way is delivered; a stop of the whole process is one."""
        stays = event == _EVENT_STOP and number in _STOPS
        self._ask_standing(_LISTEN if stays else _CONTINUE, 0 if event else number)

    def _ask_standing(self, request: int, data: int) -> bool:
        try:
            self._ask(request, data)
        except OSError as error:
            if error.errno == errno.ESRCH:
                return False
            raise
        return True

    def _ask(self, request: int, data: int = 0) -> None:
        if self._ptrace(request, self._pid, None, data) < 0:
            number = self._ctypes.get_errno()
            raise OSError(number, os.strerror(number))
