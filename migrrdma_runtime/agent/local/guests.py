"""The guests of this host: who is connected, and who is waited for.

A guest that connects says its name (a random number that moves with the process), which holds within its container
only. Which container that is says the socket that it has come in by, and the kernel must say the same.
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
from weakref import WeakValueDictionary

from migrrdma_runtime.agent.local.budget import Budget
from migrrdma_runtime.agent.local.containers import Containers, Process
from migrrdma_runtime.agent.local.guest import MESSAGE_MAX, Guest, unpack
from migrrdma_runtime.agent.local.guest_objects import GuestState
from migrrdma_runtime.agent.local.guest_sockets import HOST, GuestSockets
from migrrdma_runtime.agent.local.sockets import peer_process
from migrrdma_runtime.base import fault_points, paths
from migrrdma_runtime.base.allowed_rate import Bucket, Rate
from migrrdma_runtime.base.errors import AgentError, GuestError, MessageError, MigrRDMAError
from migrrdma_runtime.wire.guest_messages import WIRE

_log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 1024
"""Of one container, greeted or not: no container can keep the others from their agent."""

_BURST, _PER_SECOND = 1024, 50
"""New connections of one container: so many at once, as after an agent's restart, and then so many in a second."""

_HELLO_S = 10
"""A connection that does not say who it is by then is closed."""

_MAX_ACCEPTED = 8
"""Connections of one container that are taken in one turn of the loop; then it is the others' turn."""

_OUT_OF_DESCRIPTORS_S = 1
"""Nothing says when there are some again."""

_RECONNECT_S = 3
"""A guest looks for an agent at least every second."""


class Guests:
    """All of them: who is connected, and who is waited for."""

    def __init__(self, containers: Containers, run_dir: Path, on_connect: Callable[[Guest], None]) -> None:
        self._containers = containers
        self._sockets = GuestSockets(
            run_dir / paths.CONTAINERS_DIR,
            run_dir / paths.GUEST_SOCKET_DIR,
            on_open=self._begin_to_accept,
            on_close=self._cease_to_accept,
        )
        self._connected: dict[tuple[str, str], Guest] = {}
        self._open: Counter[str] = Counter()
        self._budgets: WeakValueDictionary[str, Budget] = WeakValueDictionary()
        self._changed = asyncio.Condition()
        self._on_connect = on_connect
        self._tasks: set[asyncio.Task[None]] = set()
        self._since = 0.0

    def listen(self) -> None:
        """Open the sockets: of every container that there is, and of the host."""
        self._since = asyncio.get_running_loop().time()
        self._sockets.listen()

    def listen_in(self, container: str) -> None:
        """Open the socket of a container that has been made since."""
        self._sockets.listen_in(container)

    async def close(self) -> None:
        """End every connection; the guests' data paths do not notice."""
        self._sockets.close()
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

    def ask_to_connect(self, container: str, name: str) -> None:
        """Ask a guest that has let go of us for a dump to connect: it looks for this file, on whichever host it is."""
        with fault_points.around(fault_points.Action.CALL_GUEST, GuestError):
            try:
                self._request_file(container, name).touch()
            except FileNotFoundError:
                return  # the container has been deleted meanwhile
            except OSError as error:
                raise GuestError(
                    f"cannot ask a process to connect ({error.filename}: {error.strerror})"
                ) from error

    def stop_asking(self, container: str, name: str) -> None:
        """Stop asking a guest: it has gone on, or is about to be dumped."""
        self._request_file(container, name).unlink(missing_ok=True)

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

    def _request_file(self, container: str, name: str) -> Path:
        return self._sockets.directory(container) / f"resume-{name}"

    def _begin_to_accept(self, listener: socket.socket, entrance: str) -> None:
        now = asyncio.get_running_loop().time()
        # Held as long as the listener: who connects and leaves again and again begins no new one.
        budget = self._budget_of(entrance)
        self._accept_from(listener, entrance, Bucket(Rate(_BURST, _PER_SECOND), now), budget)

    def _accept_from(self, listener: socket.socket, entrance: str, left: Bucket, budget: Budget) -> None:
        if listener.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.add_reader(listener, self._accept, listener, entrance, left, budget)

    def _budget_of(self, container: str) -> Budget:
        return self._budgets.setdefault(container, Budget(container))

    def _cease_to_accept(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listener)

    def _accept(self, listener: socket.socket, entrance: str, left: Bucket, budget: Budget) -> None:
        """Take some of the connections that wait: what one container can cost the others has a bound."""
        loop = asyncio.get_running_loop()
        rest = 0.0
        for _ in range(_MAX_ACCEPTED):
            rest = max(left.missing(1, loop.time()), budget.rest())
            if rest:
                break
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                _log.error("cannot take a guest's connection: %s", error.strerror)
                rest = _OUT_OF_DESCRIPTORS_S
                break
            left.take(1)
            # Before anything is read about the process.
            if self._open[entrance] >= _MAX_CONNECTIONS:
                _log.warning("%s has %d connections already", _whose(entrance), _MAX_CONNECTIONS)
                connection.close()
                continue
            self._open[entrance] += 1
            self._spawn(self._serve(connection, entrance))
        if rest:
            self._cease_to_accept(listener)
            loop.call_later(rest, self._accept_from, listener, entrance, left, budget)

    def _identify(self, connection: socket.socket, entrance: str) -> tuple[str, Process]:
        """Whose connection it is: by the kernel's word, and by the socket that it has come in by."""
        with peer_process(connection) as (pid, is_still_there):
            container, process = self._containers.container_of(pid), self._containers.process(pid)
            # Only now: what was read was about this process, and not about a later one of its number.
            if not is_still_there():
                raise AgentError(f"{process} has ended")
        if container == entrance or (entrance == HOST and not self._sockets.has_own(container)):
            return container, process
        raise AgentError(
            f"{process} is of {_whose(container)} by its cgroup, and has come in by the socket of {_whose(entrance)}"
        )

    async def _serve(self, connection: socket.socket, entrance: str) -> None:
        who: Guest | Process | str = f"a process at the socket of {_whose(entrance)}"
        guest = None
        with connection:
            try:
                with self._budget_of(entrance).working():
                    container, who = self._identify(connection, entrance)
                connection.setblocking(False)
                who = guest = await self._greet(connection, container, who)
                await self._enter(guest)
                await guest.read()
            except (MigrRDMAError, OSError, TimeoutError) as error:
                _log.warning("closing the connection of %s: %s", who, error)
            finally:
                self._open[entrance] -= 1
                if guest is not None:
                    await self._leave(guest)

    async def _greet(self, connection: socket.socket, container: str, process: Process) -> Guest:
        """Learn its name and state from itself; which process it is we know already."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_HELLO_S):
            message = unpack(await loop.sock_recv(connection, MESSAGE_MAX + 1))
        if message.kind != "HELLO" or message.body["state"] not in list(GuestState):
            raise MessageError(f"{process}: {message.kind} where HELLO should be, with a state that there is")
        guest = Guest(
            connection, process, container, message.body, self._budget_of(container), self._containers.looks
        )
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


def _whose(container: str) -> str:
    return f"container {container:.12}" if container else "the host"
