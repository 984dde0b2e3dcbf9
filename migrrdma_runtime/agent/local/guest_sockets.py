"""The sockets that guests connect to: each container has one, in a directory that no other container sees.

The OCI runtime makes the directory when it creates the container, and says so; ``forget-container`` removes it. So a
guest is of the container whose socket it has come in by, and what is left in a directory (the files that ask a parked
process to connect) is for the processes of one container.

The directory of the host itself is for processes that are in no container, and for containers that an earlier version
has made, which all see it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.agent.local.sockets import listen_at
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import AgentError

_log = logging.getLogger(__name__)

_MODE, _MODE_IF_ANSWERED = 0o666, 0o777
"""A guest sees by that whether questions are answered here (late comers), before it has a connection."""

HOST = ""
"""In place of a container's id: the directory of the host itself."""

Directory = tuple[int, int]
"""A directory as no later one of its name will be taken for: device and inode."""


@dataclass(frozen=True)
class _Open:
    listener: socket.socket
    directory: Directory


class GuestSockets:
    """All of them. ``on_open`` and ``on_close`` are told of each listener, and of which container it is."""

    def __init__(
        self,
        containers: Path,
        host: Path,
        on_open: Callable[[socket.socket, str], None],
        on_close: Callable[[socket.socket], None],
        *,
        answers: bool = False,
    ) -> None:
        self._mode = _MODE_IF_ANSWERED if answers else _MODE
        self._containers = containers
        self._host = host
        self._on_open = on_open
        self._on_close = on_close
        self._open: dict[str, _Open] = {}
        # For every user, whatever our own umask is. Made once and never removed: containers may have it mounted.
        host.mkdir(parents=True, exist_ok=True)
        host.chmod(paths.GUEST_SOCKET_DIR_MODE)

    def listen(self) -> None:
        """Open the host's own and those of the containers that there are."""
        self._listen(HOST)
        for folder in self._containers.glob(f"*/{paths.GUEST_SOCKET_DIR}"):
            self._listen_if_own(folder.parent.name)

    def listen_in(self, container: str) -> None:
        """Open a container's, if it has a directory of its own; close those whose container is gone."""
        for one, known in list(self._open.items()):
            if one != HOST and _identity(self._own(one)) != known.directory:
                self._close(one)
        self._listen_if_own(container)

    def _listen_if_own(self, container: str) -> None:
        if self.has_own(container) and container not in self._open:
            try:
                self._listen(container)
            except AgentError as error:
                _log.error("the guests of container %.12s cannot connect: %s", container, error)

    def has_own(self, container: str) -> bool:
        """Whether the container has a directory of its own."""
        return _is_name(container) and _identity(self._own(container)) is not None

    @property
    def of_host(self) -> Path:
        """The directory of the host's own processes, and of containers that have none."""
        return self._host

    def directory(self, container: str) -> Path:
        """The directory that a container's processes see."""
        return self._own(container) if self.has_own(container) else self._host

    def close(self) -> None:
        """Close all."""
        for one in list(self._open):
            self._close(one)

    def _own(self, container: str) -> Path:
        return self._containers / container / paths.GUEST_SOCKET_DIR

    def _listen(self, container: str) -> None:
        directory = self._host if container == HOST else self._own(container)
        identity = _identity(
            directory
        )  # first: of one that is replaced meanwhile it is a wrong one, and is noticed
        if identity is None:  # the container is gone already
            return
        listener = listen_at(directory / paths.GUEST_SOCKET, socket.SOCK_SEQPACKET, self._mode)
        self._open[container] = _Open(listener, identity)
        self._on_open(listener, container)

    def _close(self, container: str) -> None:
        listener = self._open.pop(container).listener
        self._on_close(listener)
        listener.close()


def _identity(directory: Path) -> Directory | None:
    with suppress(OSError):
        status = directory.stat()
        return status.st_dev, status.st_ino
    return None


def _is_name(container: str) -> bool:
    return container not in ("", ".", "..") and "/" not in container and "\0" not in container
