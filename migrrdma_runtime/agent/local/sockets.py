"""Unix sockets of this host: made without a moment without one, and who is at their other end."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from migrrdma_runtime.base.errors import AgentError

_BACKLOG = 128


def listen_at(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
    """A listening unix socket that takes the place of a predecessor's in one step."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(draft))
        draft.chmod(mode)
        listener.listen(_BACKLOG)
        draft.rename(path)
    except OSError as error:
        listener.close()
        raise AgentError(f"cannot listen on {path}: {error.strerror}") from error
    return listener


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end of a unix socket, by the kernel's word."""
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
