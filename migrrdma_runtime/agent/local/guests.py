"""The guests of this host: who is connected, and who is waited for.

A guest that connects says its name (a random number that moves with the process), but which container it is
in is what the kernel says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrrdma_runtime.agent.local.containers import Containers, Process
from migrrdma_runtime.agent.local.guest import MESSAGE_MAX, Guest, unpack
from migrrdma_runtime.agent.local.guest_objects import GuestState
from migrrdma_runtime.agent.local.sockets import listen_at, peer_pid
from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.errors import AgentError, GuestError, MessageError, MigrRDMAError
from migrrdma_runtime.wire.guest_messages import WIRE

_log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 1024
"""Of one container, greeted or not: no container can keep the others from their agent."""

_HELLO_S = 10
"""A connection that does not say who it is by then is closed."""

_RECONNECT_S = 3
"""A guest looks for an agent at least every second."""


class Guests:
    """All of them: who is connected, and who is waited for."""

    def __init__(self, containers: Containers, path: Path, on_connect: Callable[[Guest], None]) -> None:
        self._containers = containers
        self._path = path
        # For every user of every container, whatever our own umask is.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)
        self._connected: dict[tuple[str, str], Guest] = {}
        self._open: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._on_connect = on_connect
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._since = 0.0

    def listen(self) -> None:
        """Open the socket. Its directory is mounted into containers, so it is made once and never removed."""
        self._listener = listen_at(self._path, socket.SOCK_SEQPACKET, 0o666)
        self._since = asyncio.get_running_loop().time()
        self._spawn(self._accept(self._listener))

    async def close(self) -> None:
        """End every connection; the guests' data paths do not notice."""
        if self._listener is not None:
            self._listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def all(self) -> list[Guest]:
        """Every connected guest."""
        return list(self._connected.values())

    def of_container(self, container: str) -> list[Guest]:
        """The connected guests of a container."""
        return [guest for guest in self._connected.values() if guest.container == container]

    def find(self, container: str, name: str) -> Guest | None:
        """The guest of that name, if it is connected."""
        return self._connected.get((container, name))

    def ask_to_connect(self, name: str) -> None:
        """Ask a guest that has let go of us for a dump to connect: it looks for this file, on whichever host it is."""
        with fault_points.around(fault_points.Action.CALL_GUEST, GuestError):
            try:
                self._request_file(name).touch()
            except OSError as error:
                raise GuestError(
                    f"cannot ask a process to connect ({error.filename}: {error.strerror})"
                ) from error

    def stop_asking(self, name: str) -> None:
        """Stop asking a guest: it has gone on, or is about to be dumped."""
        self._request_file(name).unlink(missing_ok=True)

    async def wait_for_returning_guests(self, condition: Callable[[], bool] = lambda: False) -> bool:
        """If this agent has only just started, wait until guests from before have met the condition.

        Whether anything was waited for: if not, who is not connected now will not connect.
        """
        end = self._since + _RECONNECT_S
        if condition() or asyncio.get_running_loop().time() >= end:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end), self._changed:
                await self._changed.wait_for(condition)
        return True

    async def have_pids(self, pids: set[int]) -> None:
        """Give these processes time to connect, if there is reason to think that they will."""
        await self.wait_for_returning_guests(
            lambda: pids <= {guest.process.pid for guest in self._connected.values()}
        )

    async def wait_for(self, container: str, names: list[str], timeout: float) -> list[Guest]:
        """The guests of these names, once all are connected."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: all(self.find(container, name) for name in names))
                return [self._connected[container, name] for name in names]
        except TimeoutError as error:
            missing = [name for name in names if not self.find(container, name)]
            raise GuestError(
                f"{len(missing)} of {len(names)} processes of container {container:.12} did not connect to "
                f"the agent within {timeout:g} s: is the container running?"
            ) from error

    def _request_file(self, name: str) -> Path:
        return self._path.with_name(f"resume-{name}")

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                _log.error("cannot take a guest's connection: %s", error.strerror)
                await asyncio.sleep(1)  # out of descriptors: nothing says when there are some again
                continue
            self._spawn(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        guest = None
        pid = peer_pid(connection)
        # Asked before a word is exchanged: while the process is known to be there, its pid is its own.
        container, process = self._containers.container_of(pid), self._containers.process(pid)
        self._open[container] += 1
        with connection:
            try:
                if self._open[container] > _MAX_CONNECTIONS:
                    raise AgentError(f"container {container:.12} has {_MAX_CONNECTIONS} connections already")
                connection.setblocking(False)
                guest = await self._greet(connection, container, process)
                await self._enter(guest)
                await guest.read()
            except (MigrRDMAError, OSError, TimeoutError) as error:
                _log.warning("closing the connection of %s: %s", guest or process, error)
            finally:
                self._open[container] -= 1
                if guest is not None:
                    await self._leave(guest)

    async def _greet(self, connection: socket.socket, container: str, process: Process) -> Guest:
        """Learn its name and state from itself; which process it is we know already."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_HELLO_S):
            message = unpack(await loop.sock_recv(connection, MESSAGE_MAX + 1))
        if message.kind != "HELLO" or message.body["state"] not in list(GuestState):
            raise MessageError(f"{process}: {message.kind} where HELLO should be, with a state that there is")
        guest = Guest(connection, process, container, message.body)
        other = self.find(container, guest.name)
        if other is not None and other.process.pid != process.pid:
            raise AgentError(f"{process} says it is {other.process}, which is connected")
        await loop.sock_sendall(connection, WIRE.pack("WELCOME", ident=message.ident))
        return guest

    async def _enter(self, guest: Guest) -> None:
        async with self._changed:
            self._connected[guest.container, guest.name] = guest
            self._changed.notify_all()
        _log.info("%s connected, %s", guest, guest.state.name.lower())
        self._on_connect(guest)

    async def _leave(self, guest: Guest) -> None:
        if self._connected.get((guest.container, guest.name)) is guest:
            del self._connected[guest.container, guest.name]
        guest.connection_ended()
        _log.info("%s disconnected", guest)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
