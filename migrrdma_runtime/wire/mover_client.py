"""What the command line and the OCI runtime ask this host's mover: a JSON object to a line, on a socket that is root's.

The OCI runtime imports this when what it is to create is awaited from another host, under ``python -I -S``: nothing
heavy here.
"""

from migrrdma_runtime.base import paths
from migrrdma_runtime.wire.service_line import ServiceLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

    Message = dict[str, Any]

_PATIENCE_S = 20.0
"""Without any line from the mover, which sends one every few seconds, it counts as hung."""


class Mover:
    """A connection to it; `UnreachableError`: there is none."""

    def __init__(self, run_dir: str) -> None:
        path = f"{run_dir}/{paths.MOVER_SOCKET}"
        self._line = ServiceLine(path, _PATIENCE_S, "mover", "migrrdma migration moves")

    def __enter__(self) -> "Mover":
        """Nothing: it is connected already."""
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        """Close the connection."""
        self._line.close()

    def ask(self, request: "Message") -> "Message":
        """Ask, and wait for the end."""
        for answer in self.watch(request):
            if "done" in answer:
                found: Message = answer["done"]
                return found
        raise AssertionError("watch() ends with an answer")

    def watch(self, request: "Message") -> "Iterator[Message]":
        """Ask; every event until the end, and that as ``done``. Raises the mover's error."""
        self.say(request)
        while True:
            answer = self._line.hear()
            if "alive" not in answer:
                yield answer
            if "done" in answer:
                return

    def say(self, request: "Message") -> None:
        """Say something; the answer comes as that of what was asked before."""
        self._line.say(request)
