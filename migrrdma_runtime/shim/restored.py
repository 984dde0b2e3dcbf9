"""The processes that a CRIU has made which dies in the middle of a restore.

They wait for it for ever, or run if it had let them go: a container that no low-level runtime knows, since its restore
has failed. What CRIU makes are its children, or with ``--restore-sibling``, which runc and libcriu ask for, its
parent's (``restore_root_task`` in CRIU), and theirs.
"""

import contextlib
import os
import select
import signal

from migrrdma_runtime.base import process_start
from migrrdma_runtime.shim import silence

_ENDS_S = 10.0
"""How long what is killed is waited for: a process in a system call that cannot be interrupted ends later."""


class Restored:
    """Empty until CRIU dies."""

    def __init__(self) -> None:
        self._handles: list[int] = []
        self._criu: _Criu | None = None

    def meet(self, criu: int) -> None:
        """See what ``criu`` is before it begins.

        Later it enters the container's mounts for a while (``depopulate_roots_yard``), and a zombie is in none.
        """
        self._criu = _Criu(criu)

    def note(self, criu: int, has_let_go: bool) -> None:
        """Keep hold of all that ``criu`` has made, while it stands or is a zombie: they are not yet others'.

        If it is a zombie, its own children are another's, the low-level runtime's if that adopts them, as runc does;
        those beside it, the container's, are not.

        They are cut off unless it ``has_let_go`` what was committed: nothing else of a restore that fails goes on, and
        the kernel may end it before anybody else could (criu_plugin/late.h).

        What is still CRIU's program is ended at once. It waits for CRIU for ever, with a copy of CRIU's connection to
        the low-level runtime, which would wait for the end of that. What is the container's program may be complete.
        """
        parents = _parents()
        family = [pid for pid in parents if parents[pid] == criu]
        runtime = parents.get(criu, 0)
        if self._criu is not None and _is_below_us(runtime, parents):
            family += [pid for pid in parents if parents[pid] == runtime and self._criu.has_made(pid)]
        for pid in family:  # grows
            family += [child for child in parents if parents[child] == pid]
        unfinished = []
        for pid in family:
            try:
                handle = os.pidfd_open(pid)
            except OSError:
                continue  # it has ended
            self._handles.append(handle)
            if self._criu is not None and self._criu.is_program_of(pid):
                unfinished.append(handle)
        if not has_let_go:
            silence.silence_all(family)
        for handle in unfinished:
            _kill(handle)

    def kill(self) -> None:
        """End what is left of them."""
        handles, self._handles = self._handles, []
        for handle in handles:
            _kill(handle)
        for handle in handles:
            select.select([handle], [], [], _ENDS_S)
            os.close(handle)


def _kill(handle: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def _parents() -> "dict[int, int]":
    return {int(name): process_start.parent(int(name)) for name in os.listdir("/proc") if name.isdecimal()}


def _is_below_us(pid: int, parents: "dict[int, int]") -> bool:
    """Whether this is the low-level runtime. When that has died before CRIU, its parent is an engine's or the host's.

    Those have other children in other mounts: containers of the same pod, services. What CRIU has made there stays.
    """
    while pid and parents.get(pid) != os.getpid():
        pid = parents.get(pid, 0)
    return bool(pid)


class _Criu:
    """What tells the processes that it makes from others."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._start = process_start.look(pid)
        self._program = os.stat(f"/proc/{pid}/exe")
        self._mounts = os.stat(f"/proc/{pid}/ns/mnt")

    def has_made(self, sibling: int) -> bool:
        """Whether that is its work and not a hook of the low-level runtime's: by its time, and what it is."""
        start = process_start.look(sibling)
        if sibling == self._pid or self._start is None or start is None or start[1] < self._start[1]:
            return False
        try:
            same_mounts = os.path.samestat(os.stat(f"/proc/{sibling}/ns/mnt"), self._mounts)
        except OSError:
            return False
        return not same_mounts or self.is_program_of(sibling)

    def is_program_of(self, pid: int) -> bool:
        """Whether that is CRIU itself still, and nothing of the container's yet."""
        try:
            return os.path.samestat(os.stat(f"/proc/{pid}/exe"), self._program)
        except OSError:
            return False
