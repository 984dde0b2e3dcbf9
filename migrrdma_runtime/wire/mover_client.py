"""What the command line and the OCI runtime ask this host's mover: a JSON object to a line, on a socket that is root's.

The OCI runtime imports this when what it is to create is awaited from another host, under ``python -I -S``: nothing
heavy here.
"""

import json
import socket

from migrrdma_runtime.base import errors, paths
from migrrdma_runtime.base.errors import AgentError, UnreachableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

    Message = dict[str, Any]

_PATIENCE_S = 20.0
"""Without any line from the mover, which sends one every few seconds, it counts as hung."""

_MAX_LINE = 64 << 20


class Mover:
    """A connection to it; `UnreachableError`: there is none."""

    def __init__(self, run_dir: str) -> None:
        self._path = f"{run_dir}/{paths.MOVER_SOCKET}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_PATIENCE_S)
        self._rest = b""
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self._socket.close()
            raise UnreachableError(
                f"the mover of this host cannot be reached ({self._path}: {error.strerror or error}): "
                "start it with `systemctl start migrrdma-mover`"
            ) from error

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
        self._socket.close()

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
            answer = self._line()
            if "error" in answer:
                raise _error(answer["error"])
            if "alive" not in answer:
                yield answer
            if "done" in answer:
                return

    def say(self, request: "Message") -> None:
        """Say something; the answer comes as that of what was asked before."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self._lost() from error

    def _line(self) -> "Message":
        try:
            while b"\n" not in self._rest:
                data = self._socket.recv(1 << 16)
                if not data or len(self._rest) > _MAX_LINE:
                    raise self._lost()
                self._rest += data
        except TimeoutError as error:
            raise UnreachableError(
                f"the mover of this host has said nothing for {_PATIENCE_S:g} s ({self._path}): "
                "see `journalctl -u migrrdma-mover`"
            ) from error
        except OSError as error:
            raise self._lost() from error
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer: Message = json.loads(line)
        except ValueError as error:
            raise AgentError(f"the mover of this host answered what is not JSON: {line[:60]!r}") from error
        return answer

    def _lost(self) -> UnreachableError:
        return UnreachableError(
            f"the mover of this host ended in the middle ({self._path}): it undoes or finishes what it had begun when "
            "it is started again; see `migrrdma migration moves`"
        )


def _error(error: "Message") -> "errors.MigrRDMAError":
    kind = getattr(errors, str(error.get("kind")), AgentError)
    if not (isinstance(kind, type) and issubclass(kind, errors.MigrRDMAError)):
        kind = AgentError
    raised: errors.MigrRDMAError = kind(str(error.get("message")))
    raised.answered = True
    return raised
