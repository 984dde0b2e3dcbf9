"""The guests of this host: who is connected, and who is waited for.

A guest that connects says its name (a random number that moves with the process), which holds within its container
only; outside of containers, where processes have nothing in common, it holds for that very process. Which container
that is says the socket that it has come in by, and the kernel must say the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrrdma_runtime.agent.local.accounts import Account, Accounts
from migrrdma_runtime.agent.local.budget import Budget
from migrrdma_runtime.agent.local.containers import Containers, Process, ProcessId
from migrrdma_runtime.agent.local.guest import MESSAGE_MAX, Guest, unpack
from migrrdma_runtime.agent.local.guest_objects import GuestState, Question
from migrrdma_runtime.agent.local.guest_sockets import HOST, GuestSockets
from migrrdma_runtime.agent.local.owners import whose
from migrrdma_runtime.agent.local.sockets import peer_process, peer_user
from migrrdma_runtime.base import fault_points, paths
from migrrdma_runtime.base.errors import AgentError, GuestError, MessageError, MigrRDMAError
from migrrdma_runtime.wire.guest_messages import WIRE

_log = logging.getLogger(__name__)

_HELLO_S = 10
"""A connection that does not say who it is by then is closed."""

_MAX_ACCEPTED = 8
"""Connections at one socket that are taken in one turn of the loop; then it is the others' turn."""

_OUT_OF_DESCRIPTORS_S = 1
"""Nothing says when there are some again."""

_RECONNECT_S = 3
"""A guest looks for an agent at least every second."""

_Key = tuple[str, str, int]
"""The container, the name, and, outside of containers, the number of the process."""


@dataclass
class _Door:
    """A socket that guests come in by."""

    listener: socket.socket
    entrance: str
    account: Account | None
    """None: each who comes in has its user's."""
    budget: Budget
    """For the coming in itself: only then it is known who it is."""

    def rest(self) -> float:
        """For how many seconds nobody is to be let in."""
        return self.budget.rest() if self.account is None else self.account.rest()


class Guests:
    """All of them: who is connected, and who is waited for."""

    def __init__(
        self,
        containers: Containers,
        run_dir: Path,
        on_connect: Callable[[Guest], None],
        on_question: Callable[[Guest, Question], None] | None = None,
    ) -> None:
        self._containers = containers
        self._sockets = GuestSockets(
            run_dir / paths.CONTAINERS_DIR,
            run_dir / paths.GUEST_SOCKET_DIR,
            on_open=self._begin_to_accept,
            on_close=self._cease_to_accept,
            answers=on_question is not None,
        )
        self._connected: dict[_Key, Guest] = {}
        self._accounts = Accounts()
        self._changed = asyncio.Condition()
        self._on_connect = on_connect
        self._on_question = on_question
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

    def find(self, container: str, name: str, process: ProcessId | None = None) -> Guest | None:
        """The guest of that name, if it is connected.

        Outside of containers anybody may have the name of another one, and whoever has faced a process knows its: only
        that very process is meant then. A record that does not say which has any of them found.
        """
        if container:
            return self._connected.get((container, name, 0))
        if process is not None:
            guest = self._connected.get((container, name, process.pid))
            return guest if guest is not None and self._containers.is_alive(process) else None
        return next((one for one in self.of_container(container) if one.name == name), None)

    def ask_to_connect(self, container: str, name: str) -> None:
        """Ask a guest that has let go of us for a dump to connect: it looks for this file, on whichever host it is."""
        with fault_points.around(fault_points.Action.CALL_GUEST, GuestError):
            try:
                _request_file(self._sockets.directory(container), name).touch()
            except FileNotFoundError:
                return  # the container has been deleted meanwhile
            except OSError as error:
                raise GuestError(
                    f"cannot ask a process to connect ({error.filename}: {error.strerror})"
                ) from error

    def stop_asking(self, container: str, name: str) -> None:
        """Stop asking a guest: it has gone on, or is about to be dumped."""
        # It may have got a directory of its own since it was asked: after a reboot it has none until it is made again.
        for place in {self._sockets.directory(container), self._sockets.of_host}:
            _request_file(place, name).unlink(missing_ok=True)

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
                return [guest for name in names if (guest := self.find(container, name))]
        except TimeoutError as error:
            missing = [name for name in names if not self.find(container, name)]
            raise GuestError(
                f"{len(missing)} of {len(names)} processes of container {container:.12} did not connect to "
                f"the agent within {timeout:g} s: is the container running?"
            ) from error

    def _begin_to_accept(self, listener: socket.socket, entrance: str) -> None:
        if entrance == HOST:
            door = _Door(listener, entrance, None, Budget(HOST))
        else:
            account = self._accounts.of(entrance, 0)
            door = _Door(listener, entrance, account, account.budget)
        self._accept_from(door)

    def _accept_from(self, door: _Door) -> None:
        if door.listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(door.listener, self._accept, door)

    def _cease_to_accept(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listener)

    def _accept(self, door: _Door) -> None:
        """Take some of the connections that wait: what one container or user can cost the others has a bound."""
        rest = 0.0
        for _ in range(_MAX_ACCEPTED):
            rest = door.rest()
            if rest:
                break
            try:
                with door.budget.working():
                    connection, _ = door.listener.accept()
                    self._take(connection, door)
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                _log.error("cannot take a guest's connection: %s", error.strerror)
                rest = _OUT_OF_DESCRIPTORS_S
                break
        if rest:
            self._cease_to_accept(door.listener)
            asyncio.get_running_loop().call_later(rest, self._accept_from, door)

    def _take(self, connection: socket.socket, door: _Door) -> None:
        """Serve a connection, or close it: before anything is read about the process."""
        user = peer_user(connection)
        account = door.account or self._accounts.of(HOST, user)
        if account.admit():
            task = self._spawn(self._serve(connection, door.entrance, account, user))
            task.add_done_callback(
                lambda _: connection.close()
            )  # also of one that was cancelled before it began
        else:
            connection.close()

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
            f"{process} is of {whose(container)} by its cgroup, and has come in by the socket of {whose(entrance)}"
        )

    async def _serve(self, connection: socket.socket, entrance: str, account: Account, user: int) -> None:
        who: Guest | Process | str = f"a process at the socket of {whose(entrance)}"
        guest = None
        with connection:
            try:
                with account.budget.working():
                    container, who = self._identify(connection, entrance)
                connection.setblocking(False)
                # Another one if its container has no socket of its own. Held here for as long as the guest is.
                own = self._accounts.of(container, user)
                who = guest = await self._greet(connection, container, who, own)
                await self._enter(guest)
                await guest.read()
            except (MigrRDMAError, OSError, TimeoutError) as error:
                account.budget.log(_log, logging.WARNING, "closing the connection of %s: %s", who, error)
            finally:
                account.ended()
                if guest is not None:
                    await self._leave(guest)

    async def _greet(
        self, connection: socket.socket, container: str, process: Process, account: Account
    ) -> Guest:
        """Learn its name and state from itself; which process it is we know already."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_HELLO_S):
            message = unpack(await loop.sock_recv(connection, MESSAGE_MAX + 1))
        if message.kind != "HELLO" or message.body["state"] not in list(GuestState):
            raise MessageError(f"{process}: {message.kind} where HELLO should be, with a state that there is")
        guest = Guest(
            connection,
            process,
            container,
            message.body,
            account.budget,
            self._containers.looks,
            self._on_question,
        )
        other = self._connected.get(_key(guest))
        if other is not None and other.process.pid != process.pid:
            raise AgentError(f"{process} says it is {other.process}, which is connected")
        await loop.sock_sendall(
            connection,
            WIRE.pack("WELCOME", {"answers": int(self._on_question is not None)}, ident=message.ident),
        )
        return guest

    async def _enter(self, guest: Guest) -> None:
        async with self._changed:
            self._connected[_key(guest)] = guest
            self._changed.notify_all()
        guest.log(logging.INFO, "%s connected, %s", guest, guest.state.name.lower())
        self._on_connect(guest)

    async def _leave(self, guest: Guest) -> None:
        if self._connected.get(_key(guest)) is guest:
            del self._connected[_key(guest)]
        guest.connection_ended()
        guest.log(logging.INFO, "%s disconnected", guest)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _request_file(directory: Path, name: str) -> Path:
    return directory / f"resume-{name}"


def _key(guest: Guest) -> _Key:
    return guest.container, guest.name, 0 if guest.container else guest.process.pid
