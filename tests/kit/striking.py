"""Strikes a node of the fast rack at a fault point, and undoes what can be undone."""

from __future__ import annotations

import ctypes
import itertools
import os
import select
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from fault_cases import Blow, Case
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import Node

from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.fault_points import Action, Moment

LASTS_S = 2.5
"""How long a delay, a cut, a full disk or a standstill lasts: longer than an agent waits for another (`impatient`)."""

_NUMBERS = itertools.count(int(time.time()))
"""Of what strikes guests; never one that a process that lives on has met."""

CUT = """
for chain in INPUT OUTPUT; do
  for side in --dport --sport; do iptables -w {what} $chain -p tcp $side 50505 -j DROP; done
done
"""


def arm(rack: FastRack, node: Node, point: str, *words: str) -> None:
    """Have whoever comes to a point on a node be struck there, once."""
    folder, path = fault_points.FOLDER, f"{fault_points.FOLDER}/{point}"
    content = shlex.quote(" ".join(words))
    rack.shell(node).sh(
        f"mkdir -p -m 700 {folder}; umask 077; echo {content} >{path}.new; mv {path}.new {path}"
    )


VICTIMS = {
    "agent": "systemctl kill --signal=KILL --kill-whom=main migrrdma-agent || :",
    "runtime": "pkill -KILL -f '[/]runtime.py .*(checkpoint|restore)' || :",
}
"""Who may be killed at any time, and how."""


class _Opened:
    """Notices that a file is opened, by whatever path and from whatever mount namespace (inotify(7))."""

    _IN_OPEN = 0x20

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_CLOEXEC)
        watch = libc.inotify_add_watch(self._handle, os.fsencode(path), self._IN_OPEN)
        assert self._handle >= 0 and watch >= 0, os.strerror(ctypes.get_errno())

    def __bool__(self) -> bool:
        return self.within(0)

    def within(self, seconds: float) -> bool:
        """Whether it has been, or is within so many seconds."""
        return bool(select.select([self._handle], [], [], seconds)[0])

    def close(self) -> None:
        os.close(self._handle)


class Blows:
    """One case's blow, under way from when it is armed until its end.

    with Blows(rack, node, case):
        ...what comes to the point...
    """

    def __init__(self, rack: FastRack, node: Node, case: Case) -> None:
        self._rack = rack
        self._node = node
        self._case = case
        self._over = threading.Event()
        self._opened: _Opened | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Blows:
        """Arm it."""
        if self._case.in_the_guest:
            self._arm_guests()
            return self
        seconds = [str(LASTS_S)] if self._case.blow is Blow.DELAY else []
        arm(self._rack, self._node, self._case.point, self._case.blow.kind.value, *seconds)
        if self._does_it:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for its end."""
        self._over.set()
        if self._opened is not None:
            self._thread.join()
            self._rack.shell(self._node).run("rm", "-rf", fault_points.GUEST_FOLDER)
            self._opened.close()
        if self._does_it:
            self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    @property
    def has_struck(self) -> bool:
        """Whether the point was reached; on a node that was booted since, nothing is left to tell."""
        if self._opened is not None:
            return bool(self._opened)
        return (self._case.blow is Blow.POWER and self._over.is_set()) or not (
            self._folder / self._case.point
        ).exists()

    def _arm_guests(self) -> None:
        """Guests cannot remove the file: its number strikes each process once.

        One that is restored again is another process, which knows of no strike: the file goes with the first.
        """
        folder = fault_points.GUEST_FOLDER
        words = f"{next(_NUMBERS)} {self._case.blow.kind.value} {int(LASTS_S * 1000)}"
        path = f"{folder}/{self._case.point}"
        self._rack.shell(self._node).sh(f"mkdir -p {folder}; echo {words} >{path}.new; mv {path}.new {path}")
        self._guests_point = Path(f"/proc/{self._rack.host(self._node).init()}/root{path}")
        self._opened = _Opened(self._guests_point)
        self._thread = threading.Thread(target=self._disarm_guests, args=(self._opened,), daemon=True)
        self._thread.start()

    def _disarm_guests(self, opened: _Opened) -> None:
        while not self._over.is_set():
            if opened.within(0.1):
                self._guests_point.unlink(missing_ok=True)
                return

    @property
    def _does_it(self) -> Callable[[], None] | None:
        return {
            Blow.CUT: self._cut,
            Blow.DISK: self._fill,
            Blow.POWER: self._power,
            Blow.CLOCK: self._stand_still,
        }.get(self._case.blow)

    @property
    def _folder(self) -> Path:
        """The node's folder of fault points, as this machine reaches it: also while the node itself stands still."""
        return Path(f"/proc/{self._rack.host(self._node).init()}/root{fault_points.FOLDER}")

    def _watch(self) -> None:
        held = self._folder / f"{self._case.point}{fault_points.HELD}"
        while not held.exists():
            if self._over.is_set():
                return  # not reached, which the test finds out
            time.sleep(0.01)  # a file of another mount namespace: nothing tells of it
        try:
            does_it = self._does_it
            assert does_it is not None
            self._held = held
            does_it()
        except BaseException as error:  # noqa: BLE001 (a thread's, raised by the one that waits for it)
            self._error = error

    def _cut(self) -> None:
        shell = self._rack.shell(self._node)
        shell.sh(CUT.format(what="-I"))
        try:
            self._let_go()
            self._last()
        finally:
            shell.sh(CUT.format(what="-D"))

    def _fill(self) -> None:
        self._rack.fill_disk(self._node)
        try:
            self._let_go()
            self._last()
        finally:
            self._rack.free_disk(self._node)

    def _power(self) -> None:
        self._rack.power_off(self._node)
        self._rack.boot(self._node)

    def _stand_still(self) -> None:
        self._rack.freeze(self._node)
        try:
            self._last()
        finally:
            self._rack.thaw(self._node)
        self._let_go()

    def _let_go(self) -> None:
        self._held.unlink()

    @staticmethod
    def _last() -> None:
        time.sleep(LASTS_S)  # what is done, not what is waited for


class AtSomeTime(Blows):
    """A blow that falls so many seconds after its begin, wherever the move is by then."""

    def __init__(self, rack: FastRack, node: Node, blow: Blow, victim: str, seconds: float) -> None:
        super().__init__(rack, node, Case(Action.NOTE_SOURCE, Moment.BEFORE, blow))
        self._victim = victim
        self._seconds = seconds

    def __enter__(self) -> AtSomeTime:
        """Let the time run."""
        self._thread.start()
        return self

    @property
    def has_struck(self) -> bool:
        """When its time has come."""
        return not self._thread.is_alive()

    @property
    def _does_it(self) -> Callable[[], None] | None:
        return self._kill if self._case.blow is Blow.KILL else super()._does_it

    def _watch(self) -> None:
        time.sleep(self._seconds)  # what is asked for, not what is waited for
        does_it = self._does_it
        assert does_it is not None
        try:
            does_it()
        except BaseException as error:  # noqa: BLE001 (a thread's, raised by the one that waits for it)
            self._error = error

    def _kill(self) -> None:
        self._rack.shell(self._node).sh(VICTIMS[self._victim])

    def _let_go(self) -> None:
        pass
