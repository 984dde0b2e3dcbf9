"""The processes that a CRIU has made which dies in the middle of a restore.

They wait for it for ever, or run if it had let them go: a container that no low-level runtime knows, since its restore
has failed. What CRIU makes are its children, or with ``--restore-sibling``, which runc and libcriu ask for, its
parent's (``restore_root_task`` in CRIU), and theirs.
"""

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

    def note(self, criu: int, has_let_go: bool) -> None:
        """Keep hold of all that ``criu`` has made, while it still stands: their parents are not yet others.

        They are cut off unless it ``has_let_go`` what was committed: nothing else of a restore that fails goes on, and
        the kernel may end it before anybody else could (criu_plugin/late.h).
        """
        parents = _parents()
        family = [pid for pid in parents if parents[pid] == criu]
        runtime = parents.get(criu, 0)
        if _is_below_us(runtime, parents):
            family += [pid for pid in parents if parents[pid] == runtime and _is_made_by(pid, criu)]
        for pid in family:  # grows
            family += [child for child in parents if parents[child] == pid]
        for pid in family:
            try:
                self._handles.append(os.pidfd_open(pid))
            except OSError:
                continue  # it has ended
        if not has_let_go:
            silence.silence_all(family)

    def kill(self) -> None:
        """End what is left of them."""
        handles, self._handles = self._handles, []
        for handle in handles:
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            except OSError:
                continue  # it has ended
        for handle in handles:
            select.select([handle], [], [], _ENDS_S)
            os.close(handle)


def _parents() -> "dict[int, int]":
    return {int(name): process_start.parent(int(name)) for name in os.listdir("/proc") if name.isdecimal()}


def _is_below_us(pid: int, parents: "dict[int, int]") -> bool:
    """Whether this is the low-level runtime. When that has died before CRIU, its parent is an engine's or the host's.

    Those have other children in other mounts: containers of the same pod, services. What CRIU has made there stays.
    """
    while pid and parents.get(pid) != os.getpid():
        pid = parents.get(pid, 0)
    return bool(pid)


def _is_made_by(pid: int, criu: int) -> bool:
    """Whether a sibling is CRIU's work and not a hook of the low-level runtime's: by its time, and what it is."""
    ours, its = process_start.look(criu), process_start.look(pid)
    if pid == criu or ours is None or its is None or its[1] < ours[1]:
        return False
    try:
        same_program = os.path.samestat(os.stat(f"/proc/{pid}/exe"), os.stat(f"/proc/{criu}/exe"))
        same_mounts = os.path.samestat(os.stat(f"/proc/{pid}/ns/mnt"), os.stat(f"/proc/{criu}/ns/mnt"))
    except OSError:
        return False
    return same_program or not same_mounts
