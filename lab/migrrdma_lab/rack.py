"""What a rack is, whatever it is made of: what the shell command, the demo, the benchmarks and the tests use."""

from __future__ import annotations

import contextlib
import fcntl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from . import project
from .errors import RackError
from .plan import NODES, Node, Places
from .shell import Shell
from .steps import console


@dataclass(frozen=True)
class NodeStatus:
    """One line of ``lab/rack status``."""

    name: str
    running: bool
    management_address: str
    data_address: str
    partitioned: bool
    project: str


class Rack(ABC):
    """Three hosts of one Debian release with real Docker, runc and CRIU, belonging to this checkout.

    What only some racks can do is in `offers`; a rack that does not offer it raises `RackError`, which says so.
    """

    kind: ClassVar[str]
    """What ``RACK`` and ``lab/rack`` call it."""

    offers: ClassVar[frozenset[str]]
    """Of ``kernel-rdma`` (the kernel's own RDMA, Soft-RoCE), ``netem``, ``power`` (`power_off` and `boot`) …: what a
    test may need."""

    def __init__(self, places: Places) -> None:
        self.places = places

    # --- every rack has these ---------------------------------------------------------------------------------

    @abstractmethod
    def shell(self, node: Node) -> Shell:
        """Root's shell on ``node``."""

    @abstractmethod
    def up(self, nodes: Sequence[Node] = NODES) -> None:
        """Bring up what is not up; build what is not built. A second call finds everything done."""

    @abstractmethod
    def down(self) -> None:
        """Stop everything; images stay for the next `up`."""

    @abstractmethod
    def reset(self) -> None:
        """Every node back to the state after `up`, with this working tree's build."""

    @abstractmethod
    def install(self) -> None:
        """Put this working tree's build on every node that does not run it yet."""

    @abstractmethod
    def status(self) -> list[NodeStatus]:
        """What every node is doing now."""

    @abstractmethod
    def running(self, node: Node) -> bool:
        """Whether ``node`` runs; it may still be booting."""

    @abstractmethod
    def partition(self, node: Node) -> None:
        """Cut ``node`` off the data network in both directions, silently, as a broken switch port does."""

    @abstractmethod
    def heal(self, node: Node) -> None:
        """Undo `partition` and `netem`."""

    @abstractmethod
    def logs(self, node: Node) -> str:
        """What ``node`` has logged since it booted."""

    # --- and some have these ----------------------------------------------------------------------------------

    def netem(self, node: Node, arguments: Sequence[str]) -> None:
        """Delay, lose, reorder … what ``node`` sends on the data network; ``arguments`` are tc-netem(8)'s."""
        raise self._does_not_offer("netem", node, *arguments)

    def power_off(self, node: Node) -> None:
        """Everything on ``node`` ends at once, as by pulling the plug; its disk stays."""
        raise self._does_not_offer("power", node)

    def boot(self, node: Node, uptime: int | None = None) -> None:
        """Start ``node`` again after `power_off`, from its disk; returns when it answers.

        ``uptime``, where ``uptime`` is offered: how many seconds ahead of this machine's its monotonic clock is.
        """
        raise self._does_not_offer("power", node, "" if uptime is None else f"uptime {uptime}")

    def fill_disk(self, node: Node) -> None:
        """From now on nothing more can be written on ``node``: ENOSPC; until `free_disk`."""
        raise self._does_not_offer("disk", node)

    def free_disk(self, node: Node) -> None:
        """Undo `fill_disk`."""
        raise self._does_not_offer("disk", node)

    def freeze(self, node: Node) -> None:
        """Stop every process of ``node`` where it is, until `thaw`: to itself it is a clock that jumps."""
        raise self._does_not_offer("freeze", node)

    def thaw(self, node: Node) -> None:
        """Undo `freeze`."""
        raise self._does_not_offer("freeze", node)

    def _does_not_offer(self, what: str, node: Node, *arguments: str) -> RackError:
        asked = " ".join(filter(None, (what, *arguments)))
        return RackError(
            f"{node.name}: the {self.kind} rack does not offer {asked}; it offers {', '.join(sorted(self.offers))}"
        )

    # --- what they share --------------------------------------------------------------------------------------

    def node(self, name: str) -> Node:
        """The node called ``name``."""
        for node in NODES:
            if node.name == name:
                return node
        raise RackError(f"there is no node {name!r}; the rack has {', '.join(n.name for n in NODES)}")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time changes a build directory; a second one waits, saying so."""
        self.places.make()
        with locked(self.places.build / "lock", f"another rack command that uses {self.places.build}"):
            self.places.clear_unfinished()
            yield

    def _install(self, node: Node, built: Path) -> None:
        """Put the wheel ``built`` on a node that runs, unless it has it."""
        shell = self.shell(node)
        if project.installed_state(shell) != built.parent.name:
            project.install(shell, built)

    def _everywhere(self, action: Callable[[Node], None]) -> None:
        """Do ``action`` on every running node at once."""
        side_by_side([node for node in NODES if self.running(node)], action)


def side_by_side(nodes: Sequence[Node], action: Callable[[Node], None]) -> None:
    """Do ``action`` for all ``nodes`` at once; raises the error of the first that failed."""
    with ThreadPoolExecutor(len(NODES)) as pool:
        for future in [pool.submit(action, node) for node in nodes]:
            future.result()


@contextlib.contextmanager
def locked(path: Path, by: str) -> Iterator[None]:
    """Hold the lock on ``path``; while ``by`` holds it, wait, and say so."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"  waiting for {by} …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
