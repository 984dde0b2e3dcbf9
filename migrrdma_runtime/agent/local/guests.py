"""The guests of this host: processes with the guest library, each on a connection of its own.

A guest that connects says its name (a random number that moves with the process), but which container it is
in is what the kernel says. A request to it has a deadline; a guest that lets one pass, or answers what the
protocol does not have, is dropped, and it may connect anew. docs/protocol.md has the messages; ``wire.py``
their layout.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from migrrdma_runtime.agent.local.containers import Containers, Process
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import AgentError, DrainError, GuestError, MessageError, MigrRDMAError
from migrrdma_runtime.wire import guest_messages
from migrrdma_runtime.wire.guest_messages import Message, Wire, text

_log = logging.getLogger(__name__)

WIRE = Wire.load(Path(guest_messages.__file__).with_name("control.h"))
"""The header travels in the package; the guest library of the same package was compiled with it."""

_MESSAGE_MAX = WIRE.constants["MIG_MESSAGE_MAX"]
_SCOPE_ALL = WIRE.constants["MIG_SCOPE_ALL"]
_SCOPE_LISTED = WIRE.constants["MIG_SCOPE_LISTED"]
_PARK_CLOSE = WIRE.constants["MIG_PARK_CLOSE"]
_RESTORED = WIRE.constants["MIG_REBUILD_RESTORED"]

Values = dict[str, Any]

_RC = 2
_READY_TO_RECEIVE, _SEND_QUEUE_ERROR = 2, 5
_BACKLOG = 128
_MAX_CONNECTIONS = 1024
"""Of one container, greeted or not: no container can keep the others from their agent."""
_MAX_RECORDS = 1 << 20
"""Of one answer, whatever number of messages it takes: memory that a guest can make this process use."""
_HELLO_S = 10
"""A connection that does not say who it is by then is closed."""
_RECONNECT_S = 3
"""A guest looks for an agent at least every second."""


class GuestState(IntEnum):
    """``enum mig_state``."""

    RUNNING = 1
    QUIESCING = 2
    QUIESCED = 3
    PARKED = 4
    REBUILT = 5


@dataclass(frozen=True)
class QPName:
    """A queue pair as the guest calls it."""

    context: int
    vqpn: int


@dataclass(frozen=True)
class QueuePair:
    """A queue pair as the guest describes it."""

    name: QPName
    pqpn: int
    next_pqpn: int
    type: int
    state: int
    dest_vqpn: int
    dest_pqpn: int
    port: int
    sgid_index: int
    sgid: str
    dgid: str
    receives: int

    @property
    def is_connected(self) -> bool:
        """Whether a partner may be at the other end."""
        return self.type == _RC and _READY_TO_RECEIVE <= self.state <= _SEND_QUEUE_ERROR

    @property
    def end(self) -> tuple[str, int]:
        """The connection's end here, as the network knows it."""
        return self.sgid, self.pqpn

    @property
    def other_end(self) -> tuple[str, int]:
        """The other end of the connection, as the network knows it."""
        return self.dgid, self.dest_pqpn


@dataclass(frozen=True)
class Context:
    """An open device."""

    id: int
    device: str
    real_device: str
    ports: int


@dataclass(frozen=True)
class Inventory:
    """What a guest holds, and why it cannot be moved if it cannot."""

    counts: dict[str, int]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class GidChange:
    """A GID that the application uses and its place on the new device."""

    port: int
    index: int
    new_port: int
    new_index: int


@dataclass(frozen=True)
class Connect:
    """What a queue pair needs to know of its new other end."""

    name: QPName
    dest_pqpn: int
    dgid: str
    sq_psn: int
    rq_psn: int
    peer: str


class Guest:
    """One connected process."""

    def __init__(
        self, connection: socket.socket, process: Process, container: str, hello: dict[str, Any]
    ) -> None:
        self.process = process
        self.container = container
        self.name = f"{hello['token']:016x}"
        self.build_id = bytes(hello["build_id"]).hex()
        self.pid_in_container = int(hello["pid"])
        self.state = GuestState(hello["state"])
        self._connection = connection
        self._next_id = 1
        self._sending = asyncio.Lock()
        self._hung_up = asyncio.Event()
        self._answers: dict[int, tuple[list[Message], asyncio.Future[list[Message]]]] = {}

    def __str__(self) -> str:
        """How a message names it."""
        where = f"container {self.container:.12}" if self.container else "no container"
        return f"{self.process} in {where}"

    async def inventory(self, timeout: float) -> Inventory:
        """Counts of objects, and the reasons against a move."""
        [first, *more] = await self._call("INVENTORY", timeout)
        counts = {key: int(first.body[key]) for key in _COUNTED}
        reasons = tuple(text(one["text"]) for message in (first, *more) for one in message.records)
        if not first.body["migratable"]:
            reasons = reasons or ("it does not say why",)
        return Inventory(counts, reasons)

    async def contexts(self, timeout: float) -> list[Context]:
        """The open devices."""
        return [
            Context(one["context"], text(one["device"]), text(one["real_device"]), one["ports"])
            for one in _records(await self._call("LIST_CONTEXTS", timeout))
        ]

    async def queue_pairs(self, timeout: float) -> list[QueuePair]:
        """Every queue pair."""
        return _queue_pairs(await self._call("LIST_QPS", timeout))

    async def remote_keys(self, timeout: float) -> list[tuple[int, int]]:
        """The virtual and physical rkey of every memory region."""
        return [(one["vrkey"], one["prkey"]) for one in _records(await self._call("LIST_MRS", timeout))]

    async def quiesce(
        self, names: list[QPName] | None, seconds: float, timeout: float, alone: float = 0
    ) -> None:
        """Keep new sends back and drive those under way to completion; of these queue pairs, or of all.

        ``alone``: for how many seconds the guest is to stay so without a word from an agent.
        """
        until = time.monotonic() + seconds
        for scope, part in _scopes("QUIESCE", names):
            left = max(0.0, until - time.monotonic())
            limits = {"timeout_ms": int(left * 1000), "alone_s": math.ceil(alone)}
            await self._done("QUIESCE", left + timeout, {**scope, **limits}, part)
        self.state = GuestState.QUIESCED

    async def abort(self, timeout: float) -> None:
        """Undo whatever was begun, down to nothing; the connections are the old ones."""
        await self._done("ABORT", timeout)
        self.state = GuestState.RUNNING

    async def park(self, timeout: float) -> None:
        """Touch the device no more; nothing is made, connected or destroyed from now on."""
        await self._done("PARK", timeout, {"flags": 0})
        self.state = GuestState.PARKED

    async def hang_up(self, timeout: float) -> None:
        """Close this connection, of a parked guest: the process is about to be dumped."""
        await self._done("PARK", timeout, {"flags": _PARK_CLOSE})
        # It answers first and then hangs up. Dumped in between, it would have an open socket of ours.
        try:
            async with asyncio.timeout(timeout):
                await self._hung_up.wait()
        except TimeoutError:
            raise GuestError(
                f"{self} has not closed its connection {timeout:.0f} s after it was parked"
            ) from None

    async def rebuild(
        self, context: int, device: str, changes: list[GidChange], timeout: float
    ) -> list[QueuePair]:
        """Make every object of a context again on this host's device; says the new numbers."""
        body = {"context": context, "flags": _RESTORED, "device": device}
        answer = await self._call("REBUILD", timeout, body, [vars(change) for change in changes])
        return [pair for pair in _queue_pairs(answer) if pair.name.context == context]

    async def prepare_partner(self, names: list[QPName], timeout: float) -> list[QueuePair]:
        """Make a successor for each of these queue pairs, beside it; says the new numbers."""
        answer: list[Message] = []
        for scope, part in _scopes("PARTNER", names):
            answer = await self._call("PARTNER", timeout, scope, part)
        wanted = set(names)
        return [pair for pair in _queue_pairs(answer) if pair.name in wanted]

    async def connect(self, connections: list[Connect], timeout: float) -> None:
        """Connect the new queue pairs to their new other ends; nothing is sent yet."""
        records = [
            {
                "context": one.name.context,
                "vqpn": one.name.vqpn,
                "dest_pqpn": one.dest_pqpn,
                "sq_psn": one.sq_psn,
                "rq_psn": one.rq_psn,
                "peer": int(one.peer, 16),
                "dgid": gids.packed(one.dgid),
            }
            for one in connections
        ]
        for part, _ in _parts("CONNECT", records):
            await self._done("CONNECT", timeout, {}, part)

    async def learn_keys(self, peer: str, keys: list[tuple[int, int]], timeout: float) -> None:
        """Take over the rkeys of the process at the other end."""
        records = [{"vrkey": virtual, "prkey": physical} for virtual, physical in keys]
        for part, more in _parts("KEYS", records):
            await self._done("KEYS", timeout, {"peer": int(peer, 16)}, part, more=more)

    async def resume(self, timeout: float) -> None:
        """Go on, on the new queue pairs where there are any: what was kept back is sent now."""
        await self._done("RESUME", timeout)
        self.state = GuestState.RUNNING

    async def _done(
        self, kind: str, timeout: float, body: Values | None = None, records: Any = (), *, more: bool = False
    ) -> None:
        """Ask for something that is answered by DONE, and raise what it says went wrong."""
        answer = await self._call(kind, timeout, body, records, more=more)
        _raise_for(self, kind, answer)

    async def _call(
        self, kind: str, timeout: float, body: Values | None = None, records: Any = (), *, more: bool = False
    ) -> list[Message]:
        """Send a request and collect its answer, which may take several messages."""
        loop = asyncio.get_running_loop()
        identity = self._next_id
        self._next_id = identity % 0xFFFFFFFF + 1
        future: asyncio.Future[list[Message]] = loop.create_future()
        self._answers[identity] = ([], future)
        try:
            async with asyncio.timeout(timeout):
                packet = WIRE.pack(kind, body, records, ident=identity, more=more)
                async with self._sending:
                    await loop.sock_sendall(self._connection, packet)
                answer = await future
        except TimeoutError as error:
            self.drop(f"no answer to {kind} within {timeout:g} s")
            raise GuestError(
                f"{self} did not answer {kind.lower()} within {timeout:g} s: is it stopped?"
            ) from error
        except OSError as error:
            raise GuestError(f"{self} has gone: {error.strerror}") from error
        finally:
            self._answers.pop(identity, None)
        if answer[0].kind != WIRE.kinds[kind].reply:
            _raise_for(self, kind, answer)
            raise MessageError(f"{self} answered {kind} by {answer[0].kind}")
        return answer

    async def read(self) -> None:
        """Take messages until the connection ends."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._connection, _MESSAGE_MAX + 1):
            message = _unpack(data)
            parts, answer = self._answers.get(message.ident, ([], None))
            if answer is None or answer.done():
                raise MessageError(f"{message.kind} answers nothing that was asked (id {message.ident})")
            parts.append(message)
            if sum(len(part.records) for part in parts) > _MAX_RECORDS or (
                message.more and not message.records
            ):
                raise MessageError(f"an answer of more than {_MAX_RECORDS} records, or in empty parts")
            if not message.more:
                answer.set_result(parts)

    def drop(self, reason: str) -> None:
        """End the connection; the guest may make another one."""
        _log.warning("dropping %s: %s", self, reason)
        with contextlib.suppress(OSError):  # it may have gone by itself
            self._connection.shutdown(socket.SHUT_RDWR)

    def gone(self) -> None:
        """Tell whoever waits for an answer that there will be none."""
        self._hung_up.set()
        for _, answer in self._answers.values():
            if not answer.done():
                answer.set_exception(GuestError(f"{self} closed its connection to the agent"))


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
        self._listener = listen(self._path, socket.SOCK_SEQPACKET, 0o666)
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

    def of(self, container: str) -> list[Guest]:
        """The connected guests of a container."""
        return [guest for guest in self._connected.values() if guest.container == container]

    def find(self, container: str, name: str) -> Guest | None:
        """The guest of that name, if it is connected."""
        return self._connected.get((container, name))

    def call(self, name: str) -> None:
        """Call a guest that has let go of us for a dump: it looks for this file, wherever it has got to."""
        self._called(name).touch()

    def call_off(self, name: str) -> None:
        """Stop calling a guest: it has gone on, or is about to be dumped."""
        self._called(name).unlink(missing_ok=True)

    async def given_time(self, condition: Callable[[], bool] = lambda: False) -> bool:
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
        await self.given_time(lambda: pids <= {guest.process.pid for guest in self._connected.values()})

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

    def _called(self, name: str) -> Path:
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
        container, process = self._containers.of(pid), self._containers.process(pid)
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
            message = _unpack(await loop.sock_recv(connection, _MESSAGE_MAX + 1))
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
        guest.gone()
        _log.info("%s disconnected", guest)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_COUNTED = ("contexts", "pds", "mrs", "channels", "cqs", "qps", "mr_bytes", "receives")


def listen(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
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


def _parts(kind: str, records: list[Values]) -> Iterator[tuple[list[Values], bool]]:
    """The records, as many at a time as a message holds, and whether there are more; at least one part."""
    shape = WIRE.kinds[kind]
    room = (_MESSAGE_MAX - WIRE.layouts["mig_header"].size - shape.body.size) // shape.record.size
    for at in range(0, max(1, len(records)), room):
        yield records[at : at + room], at + room < len(records)


def _scopes(kind: str, names: list[QPName] | None) -> Iterator[tuple[Values, list[Values]]]:
    """The bodies and records that name queue pairs: these, or all."""
    if names is None:
        yield {"kind": _SCOPE_ALL}, []
        return
    for part, _ in _parts(kind, [vars(name) for name in names]):
        yield {"kind": _SCOPE_LISTED}, part


def _raise_for(guest: Guest, kind: str, answer: list[Message]) -> None:
    """Raise what a DONE says went wrong."""
    if answer[0].kind != "DONE" or not answer[0].body["error"]:
        return
    error = int(answer[0].body["error"])
    reason = f"{text(answer[0].body['text'])}: {os.strerror(abs(error)).lower()}".removeprefix(": ")
    stuck = _some([f"QP 0x{one['vqpn']:x}" for one in _records(answer)])
    if kind == "QUIESCE" and error == errno.ETIMEDOUT:
        raise DrainError(
            f"{guest} did not drain within the deadline ({stuck}): the other ends post no receives, or hang"
        )
    raise GuestError(f"{guest}: {kind.lower()}: {reason}{f' ({stuck})' if stuck else ''}")


def _unpack(packet: bytes) -> Message:
    if not packet:
        raise MessageError("the connection ended before a word was said")
    return WIRE.unpack(packet)


def _records(answer: list[Message]) -> list[Values]:
    return [record for message in answer for record in message.records]


def _queue_pairs(answer: list[Message]) -> list[QueuePair]:
    same = ("pqpn", "next_pqpn", "type", "state", "dest_vqpn", "dest_pqpn", "port", "sgid_index", "receives")
    return [
        QueuePair(
            name=QPName(record["context"], record["vqpn"]),
            sgid=gids.text(record["sgid"]),
            dgid=gids.text(record["dgid"]),
            **{key: record[key] for key in same},
        )
        for record in _records(answer)
    ]


def _some(names: list[str], most: int = 8) -> str:
    """A list for people: its beginning, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
