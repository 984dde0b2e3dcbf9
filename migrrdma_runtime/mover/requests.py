"""What this host asks its mover, on a unix socket that only root sees: one JSON object to a line.

A request is answered by any number of events and in the end by ``{"done": …}`` or ``{"error": …}``, with a line at
least every few seconds. A move goes on when whoever asked for it has gone; ``cancel`` undoes it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from migrrdma_runtime.agent.local.sockets import listen_at
from migrrdma_runtime.base import strict_json
from migrrdma_runtime.base.errors import AgentError, MigrRDMAError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import MIGRATION, Message, record

_log = logging.getLogger(__name__)

ALIVE_S = 3
_MAX_LINE = 1 << 20
_NAME = {"type": "string", "minLength": 1, "maxLength": 1024}

_TIME = {"type": "number", "minimum": 0, "maximum": 31 * 86400}
"""Seconds."""

MOVE = record(
    container=_NAME,
    engine={"type": "string", "maxLength": 64},
    destination={"type": "string", "minLength": 1, "maxLength": 261},
    dry_run={"type": "boolean"},
    keep_source={"type": "boolean"},
    # Bytes a second; 0: as many as there is room for.
    bandwidth={"type": "integer", "minimum": 0, "maximum": 1 << 50},
    tcp={"type": "string", "pattern": "^(refuse|keep)$", "maxLength": 6},
    with_volumes={"type": "boolean"},
    # At most so many go ahead of the rest; -1: as many as pay.
    rounds={"type": "integer", "minimum": -1, "maximum": 64},
    max_downtime=_TIME,
    # That each step may take; 0: as long as it takes.
    timeout=_TIME,
)
"""What is to be moved, and how."""

REQUESTS = {
    # ``source``: the host on which the container is; empty: this one.
    "migrate": record(op={}, source={"type": "string", "maxLength": 261}, move=MOVE),
    "cancel": record(op={}, move=MIGRATION),
    "list": record(op={}),
    "awaited": record(op={}, container=_NAME),
}

Say = Callable[[Message], None]
Operation = Callable[[Message, Say], Awaitable[Message]]


class Requests:
    """Listens, and hands requests to the operations."""

    def __init__(self, operations: dict[str, Operation]) -> None:
        self._operations = operations
        self._server: asyncio.Server | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path) -> None:
        """Open the socket, for root alone."""
        listener = listen_at(path, socket.SOCK_STREAM, 0o600)
        self._server = await asyncio.start_unix_server(self._connected, sock=listener, limit=_MAX_LINE)

    async def close(self) -> None:
        """Close the socket, and stop what is being carried out, as it is."""
        if self._server is not None:
            self._server.close()
        for one in list(self._work):
            one.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for one in list(self._connections):
            one.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: set[asyncio.Task[None]] = set()
        connection = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        try:
            while data := await reader.readline():
                task = asyncio.get_running_loop().create_task(self._carry_out(data, writer))
                for group in (mine, self._work):
                    group.add(task)
                    task.add_done_callback(group.discard)
        except (ValueError, ConnectionError) as error:  # a line without end, or the other end gone
            _log.warning("closing a connection: %s", error)
        finally:
            # What was asked for goes on; its answer may have nobody to hear it.
            if mine:
                await asyncio.wait(set(mine))
            writer.close()

    async def _carry_out(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        def say(message: Message) -> None:
            with suppress(ConnectionError, RuntimeError):
                writer.write(json.dumps(message).encode() + b"\n")

        alive = asyncio.get_running_loop().create_task(_say_alive(say))
        try:
            say({"done": await self._operation(data, say)})
        except MigrRDMAError as error:
            say({"error": {"kind": type(error).__name__, "message": str(error)}})
        except Exception:  # noqa: BLE001 (a bug of ours; somebody waits for an answer)
            _log.exception("a request failed")
            text = "internal error in the mover; see its log (journalctl -u migrrdma-mover)"
            say({"error": {"kind": "AgentError", "message": text}})
        finally:
            alive.cancel()

    async def _operation(self, data: bytes, say: Say) -> Any:
        try:
            request = strict_json.parse(data)
            schema = REQUESTS[request["op"]]
        except (ValueError, KeyError, TypeError) as error:
            raise AgentError(f"not a request: {data[:60]!r}; is migrrdma of another version?") from error
        checked = agent_messages.check(request, schema, request["op"])
        return await self._operations[request["op"]](checked, say)


async def _say_alive(say: Say) -> None:
    while True:
        await asyncio.sleep(ALIVE_S)
        say({"alive": True})
