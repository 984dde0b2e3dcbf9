"""The OCI runtime's side: requests on a unix socket that only root sees, one JSON object to a line.

A request is answered by any number of ``{"step": …}``, at most one ``{"ready": …}`` (now the runtime is to do
its part and to report), and in the end ``{"done": …}`` or ``{"error": …}``. A line at least every few seconds
says that the agent is alive, so that the other end needs no guess of how long a drain may take.

The runtime's report finds its migration by name, on any connection: the agent may have been restarted
meanwhile. It is the report of the runtime that has begun it and of no other: the one of an earlier restore may
still be at work, and does not speak for what is restored now. A runtime that ends without one is noticed by its
connection's end, or its process's after such a restart.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from migrrdma_runtime.agent.local.containers import Containers, ProcessId
from migrrdma_runtime.agent.local.sockets import listen_at, peer_pid
from migrrdma_runtime.base import fault_points, strict_json
from migrrdma_runtime.base.errors import AgentError, MigrRDMAError
from migrrdma_runtime.wire import agent_messages, manifest
from migrrdma_runtime.wire.agent_messages import (
    MIGRATION,
    NAME,
    SECONDS,
    START,
    STEP_NAME,
    Message,
    list_of,
    record,
)

_log = logging.getLogger(__name__)

ALIVE_S = 3
"""How often a waiting runtime is told that the agent is there; its own patience is several times that."""

_CONTAINER = {"type": "string", "minLength": 1, "maxLength": 1024}
_STEP = record(name=STEP_NAME, start=START, seconds=SECONDS)

REQUESTS = {
    # ``move``: the one whose step it is, or nothing; ``only_for``: who alone may restore it.
    "checkpoint": record(
        op={},
        container=_CONTAINER,
        leave_running={"type": "boolean"},
        move={"type": "string", "pattern": "^([0-9a-f]{16})?$", "maxLength": 16},
        only_for={"type": "string", "maxLength": 64},
    ),
    # Whoever conducts a move: how it stands with the checkpoint that is its step; and that it has come to nothing.
    "move": record(op={}, move=MIGRATION),
    "examine": record(op={}, container=_CONTAINER),
    "take_back": record(op={}, move=MIGRATION),
    "restore": record(op={}, container=_CONTAINER, manifest={"type": "object"}),
    "report": record(
        op={},
        migration=MIGRATION,
        succeeded={"type": "boolean"},
        # What the runtime knows and the agent cannot: of the dump, how long the container was frozen.
        steps=list_of(_STEP, 16),
    ),
    # CRIU's plugin: everything is restored and stands at its last instruction (agent/roles/standing.py).
    # ``runtime``: the process that has begun the restore, of which there may have been another one by then.
    "standing": record(
        op={}, migration=MIGRATION, runtime={"type": "integer", "minimum": 1, "maximum": 1 << 22}
    ),
    # The same, once more: whether it may let them go, since they are committed.
    "letting_go": record(
        op={}, migration=MIGRATION, runtime={"type": "integer", "minimum": 1, "maximum": 1 << 22}
    ),
    # And the last time: whether CRIU has let them go, or has ended them.
    "gone_on": record(
        op={},
        migration=MIGRATION,
        runtime={"type": "integer", "minimum": 1, "maximum": 1 << 22},
        succeeded={"type": "boolean"},
    ),
    "announce": record(op={}, container=_CONTAINER),
    "status": record(op={}),
    "objections": record(op={}),
    "adopt": record(op={}, manifest={"type": "object"}, fenced=NAME),
    "abandon": record(
        op={},
        migration=MIGRATION,
        lost={"type": "boolean"},
        role={"type": "string", "pattern": "^(source|destination|partner)?$", "maxLength": 11},
    ),
}


@dataclass(frozen=True)
class Verdict:
    """How the runtime's part went; ``died``: it ended without saying."""

    succeeded: bool
    steps: list[Message] = field(default_factory=list)
    died: bool = False


class Runtime:
    """One migration's runtime: told of the steps, waited for in the middle."""

    def __init__(self, api: RuntimeApi, process: ProcessId, line: _Line | None = None) -> None:
        self._api = api
        self.process = process
        self.released = False
        """The claim was given back, durably: what was restored must not run and is to be killed."""
        self._line = line

    @property
    def has_ended(self) -> bool:
        """Whether nobody is there any more to hear the answer."""
        return self._line is not None and self._line.ended.is_set()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say what is being done."""
        self.say(name)
        yield

    def say(self, name: str) -> None:
        """Say that this is what comes next; it is with the kernel when this returns, if the other end reads."""
        self._tell({"step": name})

    def ready(self, migration: str, document: Message | None, outcome: str = "", kept: str = "") -> None:
        """Say that it is the runtime's turn.

        ``outcome``: the file that is to say that a dump has succeeded; ``kept``: the pointer to images that are kept.
        """
        self._api.expect(migration, self.process)
        self._tell(
            {"ready": {"migration": migration, "manifest": document, "outcome": outcome, "kept": kept}}
        )

    async def verdict(self, migration: str) -> Verdict:
        """Wait until the runtime has reported, or has ended without."""
        report = self._api.expect(migration, self.process)
        end = asyncio.ensure_future(self._line.ended.wait() if self._line else self._api.end_of(self.process))
        try:
            await asyncio.wait((report, end), return_when=asyncio.FIRST_COMPLETED)
            if not report.done():
                return Verdict(succeeded=False, died=True)
            verdict, self._line = report.result()
            return verdict
        finally:
            end.cancel()
            self._api.forget(migration, self.process)

    async def end(self) -> None:
        """Wait until its process has ended, and all that it has said on this connection is taken."""
        await self._api.end_of(self.process)
        if self._line is not None:
            await self._line.ended.wait()
            await self._line.worked()

    def finished(self, result: Message) -> None:
        """Give the final answer."""
        self._tell({"done": result})

    def failed(self, error: MigrRDMAError) -> None:
        """Give the final answer: why it did not work."""
        answer = {"kind": type(error).__name__, "message": str(error), "released": self.released}
        self._tell({"error": answer})

    def _tell(self, message: Message) -> None:
        if self._line is None:
            return
        action = next((known for key, known in _STRUCK.items() if key in message), None)
        try:
            with fault_points.around(action) if action else nullcontext():
                self._line.send(message)
        except OSError as error:
            _log.warning("process %d is not told: %s", self.process.pid, error)
            self._line.cut()


_STRUCK = {
    "ready": fault_points.Action.SAY_READY,
    "done": fault_points.Action.SAY_DONE,
    "error": fault_points.Action.SAY_ERROR,
}

Operation = Callable[[Message, Runtime], Awaitable[Message]]


class RuntimeApi:
    """Listens, and hands requests to the operations."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._operations: dict[str, Operation] = {}
        self._served = asyncio.Event()
        self._reports: dict[tuple[str, int], asyncio.Future[tuple[Verdict, _Line]]] = {}
        """By migration and the runtime's number, which is no other's as long as it lives to report."""
        self._server: asyncio.Server | None = None
        self._lines: dict[_Line, asyncio.Task[None]] = {}

    async def listen(self, path: Path) -> None:
        """Open the socket, for root alone."""
        listener = listen_at(path, socket.SOCK_STREAM, 0o600)
        self._server = await asyncio.start_unix_server(
            self._connected, sock=listener, limit=manifest.MAX_BYTES
        )

    def serve(self, operations: dict[str, Operation]) -> None:
        """Begin to carry out requests; those that came before have waited, being told that we are alive."""
        self._operations = operations
        self._served.set()

    async def close(self) -> None:
        """Close the socket; requests under way end without an answer, and their senders ask again."""
        if self._server is not None:
            self._server.close()
        lines = dict(self._lines)
        for line in lines:
            await line.stop()
        self._served.set()  # whoever waits for it sees that its connection has ended
        await asyncio.gather(*lines.values())

    def expect(self, migration: str, runtime: ProcessId) -> asyncio.Future[tuple[Verdict, _Line]]:
        """The report of a runtime on a migration, which may come on any connection."""
        return self._reports.setdefault((migration, runtime.pid), asyncio.get_running_loop().create_future())

    def forget(self, migration: str, runtime: ProcessId) -> None:
        """The report has been taken; another one would be a mistake."""
        self._reports.pop((migration, runtime.pid), None)

    def runtime_of(self, process: ProcessId) -> Runtime:
        """The runtime that a previous agent talked to."""
        return Runtime(self, process)

    async def end_of(self, process: ProcessId) -> None:
        """Wait for a process to end."""
        try:
            handle = os.pidfd_open(process.pid)
        except OSError:
            return
        try:
            if not self._containers.is_alive(process):
                return  # its number has gone to another one
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(handle, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(handle)
        finally:
            os.close(handle)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid = peer_pid(writer.get_extra_info("socket"))
        line = _Line(writer)
        self._lines[line] = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            if not self._served.is_set():
                line.serve(self._served.wait())
                await self._served.wait()
            while self._operations and (data := await reader.readline()):
                self._take(data, line, self._containers.identify(pid))
            await line.drained()
        except (ValueError, ConnectionError) as error:  # a line without end, or the other end gone
            _log.warning("closing the connection of process %d: %s", pid, error)
        finally:
            line.ended.set()
            writer.close()
            del self._lines[line]

    def _take(self, data: bytes, line: _Line, process: ProcessId) -> None:
        runtime = Runtime(self, process, line)
        try:
            request = _decode(data)
        except MigrRDMAError as error:
            runtime.failed(error)
            return
        report = self._reports.get((request.get("migration", ""), process.pid))
        if request["op"] == "report" and report is not None and not report.done():
            report.set_result((Verdict(request["succeeded"], request["steps"]), line))
            line.serve(line.answered.wait())
        else:
            line.serve(self._perform(self._operations[request["op"]], request, runtime))

    @staticmethod
    async def _perform(operation: Operation, request: Message, runtime: Runtime) -> None:
        try:
            runtime.finished(await operation(request, runtime))
        except MigrRDMAError as error:
            _log.info("%s: %s", request["op"], error)
            runtime.failed(error)
        except Exception:  # noqa: BLE001 (a bug of ours; the runtime waits for an answer)
            _log.exception("%s failed", request["op"])
            runtime.failed(
                AgentError("internal error in the agent; see its log (journalctl -u migrrdma-agent)")
            )


class _Line:
    """The answering half of a connection; what is sent when the other end has gone is lost."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._work: set[asyncio.Task[None]] = set()
        self.answered = asyncio.Event()
        self.ended = asyncio.Event()

    def send(self, message: Message) -> None:
        if "done" in message or "error" in message:
            self.answered.set()
        with suppress(ConnectionError):
            self._writer.write(json.dumps(message).encode() + b"\n")

    def serve(self, work: Any) -> None:
        """Carry out a request, which goes on when the connection ends: only a report or a death stops it."""
        task = asyncio.get_running_loop().create_task(self._kept_alive(work))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def worked(self) -> None:
        """Wait until whatever is being carried out has ended."""
        if self._work:
            await asyncio.wait(set(self._work))

    async def stop(self) -> None:
        """End whatever is being carried out, as it is, and then the connection."""
        work = list(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self.cut()

    def cut(self) -> None:
        """End the connection; the other end asks again on another one."""
        self._writer.transport.abort()

    async def drained(self) -> None:
        with suppress(ConnectionError):
            await self._writer.drain()

    async def _kept_alive(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=ALIVE_S)
                if not task.done():
                    self.send({"alive": True})
        finally:
            task.cancel()
            await asyncio.wait((task,))


def _decode(data: bytes) -> Message:
    try:
        request = strict_json.parse(data)
        schema = REQUESTS[request["op"]]
    except (ValueError, KeyError, TypeError) as error:
        raise AgentError(f"not a request: {data[:60]!r}; is the runtime of another version?") from error
    return agent_messages.check(request, schema, request["op"])
