"""Run the low-level runtime as a child where something remains to be done after it.

To the caller the child must be the process it started: its descriptors, its signals, its exit code.
"""

import os
import signal
import sys

from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.shim import lowlevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_SI_KERNEL = 0x80
_PR_SET_PDEATHSIG = 1

_NOT_FORWARDED = {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP}


def run(
    runtime: str,
    args: list[str],
    stderr: int | None = None,
    meanwhile: "Callable[[], None] | None" = None,
) -> int:
    """Run ``runtime`` with our own descriptors (``stderr`` in place of 2) and return its wait status.

    ``meanwhile``: what is begun when it was started; a thread that it makes gets no signal.
    """
    # Blocked from before the fork on, so that no signal is lost between the fork and the first wait.
    former = signal.pthread_sigmask(
        signal.SIG_BLOCK, signal.valid_signals() - _NOT_FORWARDED | {signal.SIGCHLD}
    )
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become_child(runtime, args, stderr, parent, former)
    try:
        if meanwhile is not None:
            meanwhile()
        return _wait(child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _become_child(
    runtime: str, args: list[str], stderr: int | None, parent: int, mask: "set[signal.Signals | int]"
) -> "NoReturn":
    try:
        _die_with(parent)
        if stderr is not None:
            os.dup2(stderr, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        lowlevel.become(runtime, args)
    except MigrRDMAError as error:
        os.write(2, f"{error}\n".encode(errors="surrogateescape"))
    finally:
        os._exit(1)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent is killed: who kills us means the runtime."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # too late
        os._exit(1)


def _wait(child: int) -> int:
    """Forward every signal until the child ends.

    Not until its pipes close: a container's processes keep them open, long after a detached restore.
    """
    waited_for = signal.valid_signals() - _NOT_FORWARDED | {signal.SIGCHLD}
    while True:
        info = signal.sigwaitinfo(waited_for)
        if info.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status
        elif info.si_code != _SI_KERNEL:  # what the terminal sends, it sends to the child as well
            os.kill(child, info.si_signo)


def end_like(status: int) -> "NoReturn":
    """End this process as the child has ended, killed by the same signal if it was by one."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(os.waitstatus_to_exitcode(status))
