"""A connection to a service of this host, the agent or the mover: a JSON object to a line, on a socket that is root's.

The OCI runtime imports this under ``python -I -S``: nothing heavy here.
"""

import json
import socket

from migrrdma_runtime.base import errors
from migrrdma_runtime.base.errors import AgentError, UnreachableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

_MAX_LINE = 64 << 20


class LostError(UnreachableError):
    """The connection ended before the answer."""


class ServiceLine:
    """What is said and heard on it; every failure is an `AgentError`, of one line."""

    def __init__(self, path: str, patience: float, service: str, see: str) -> None:
        """Connect, or raise `UnreachableError`.

        ``patience``: seconds without any line after which it counts as hung; ``service``: ``agent`` or ``mover``;
        ``see``: the command that shows what has become of what it had begun.
        """
        self._path = path
        self._patience = patience
        self._service = service
        self._see = see
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(patience)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise UnreachableError(
                f"the {service} of this host cannot be reached ({path}: {error.strerror or error}): "
                f"start it with `systemctl start migrrdma-{service}`"
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def say(self, request: "Message") -> None:
        """Send a request."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise self._lost() from error

    def hear(self) -> "Message":
        """The next line; raises the error that it answers with."""
        try:
            while b"\n" not in self._rest:
                data = self._socket.recv(1 << 16)
                if not data or len(self._rest) > _MAX_LINE:
                    raise self._lost()
                self._rest += data
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise self._lost() from error
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer: Message = json.loads(line)
        except ValueError as error:
            raise AgentError(
                f"the {self._service} of this host answered what is not JSON: {line[:60]!r}"
            ) from error
        if "error" in answer:
            raise error_of(answer["error"])
        return answer

    def _silent(self) -> UnreachableError:
        return UnreachableError(
            f"the {self._service} of this host has said nothing for {self._patience:g} s ({self._path}): "
            f"see `journalctl -u migrrdma-{self._service}`"
        )

    def _lost(self) -> LostError:
        return LostError(
            f"the {self._service} of this host ended in the middle ({self._path}): it undoes or finishes what it had "
            f"begun when it is started again; see `{self._see}`"
        )


def error_of(error: "Message") -> "errors.MigrRDMAError":
    """A service's error, as the kind it had there."""
    kind = getattr(errors, str(error.get("kind")), AgentError)
    if not (isinstance(kind, type) and issubclass(kind, errors.MigrRDMAError)):
        kind = AgentError
    raised: errors.MigrRDMAError = kind(str(error.get("message")))
    raised.answered, raised.released = True, bool(error.get("released"))
    return raised
