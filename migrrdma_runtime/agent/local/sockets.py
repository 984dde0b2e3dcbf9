"""Unix sockets of this host: made without a moment without one, and who is at their other end."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from migrrdma_runtime.base.errors import AgentError

_BACKLOG = 128

_SO_PEERPIDFD = 77
"""``asm-generic/socket.h``; Python's ``socket`` has no name for it."""


def listen_at(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
    """A listening unix socket that takes the place of a predecessor's in one step."""
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By way of the descriptor: a socket's address has 107 bytes, and a container's id alone may have 64.
            draft = Path(f"/proc/self/fd/{folder}/.{path.name}.{os.getpid()}")
            draft.unlink(missing_ok=True)
            listener.bind(str(draft))
            draft.chmod(mode)
            listener.listen(_BACKLOG)
            draft.rename(draft.with_name(path.name))
        finally:
            os.close(folder)
    except OSError as error:
        listener.close()
        raise AgentError(f"cannot listen on {path}: {error.strerror}") from error
    return listener


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end of a unix socket, by the kernel's word."""
    return _credentials(connection)[0]


def peer_user(connection: socket.socket) -> int:
    """The user that the process at the other end was when it connected, by the kernel's word."""
    return _credentials(connection)[1]


@contextmanager
def peer_process(connection: socket.socket) -> Iterator[tuple[int, Callable[[], bool]]]:
    """The process at the other end, and a function that says whether its number is still its own.

    Linux 6.5 and later have ``SO_PEERPIDFD``, which names the very process that connected. Before, one that ended
    earlier than we came to ask may have left its number to another one.
    """
    pid = peer_pid(connection)
    try:
        handle = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise _gone(pid) from error
        try:
            handle = os.pidfd_open(pid)
        except OSError as gone:
            raise _gone(pid) from gone
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        yield pid, lambda: not ended.poll(0)
    finally:
        os.close(handle)


def _credentials(connection: socket.socket) -> tuple[int, int]:
    pid, user, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid), int(user)


def _gone(pid: int) -> AgentError:
    return AgentError(f"process {pid}, which has connected, has ended")
