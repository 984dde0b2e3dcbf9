"""A guest in the test's own process that answers what the protocol has, or a random change of it.

Unlike fake_guest.py it holds nothing and remembers nothing: it is there for the agent that has to bear it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from pathlib import Path
from typing import Any

from fuzzing import changed_bytes

from migrrdma_runtime.wire.guest_messages import WIRE, Message

Answer = tuple[dict[str, Any], list[dict[str, Any]]]


class ChangingGuest:
    """A connection to an agent."""

    def __init__(
        self, rng: random.Random, path: Path, name: str, pairs: list[dict[str, Any]], *, changes: float
    ) -> None:
        """``changes``: which part of the answers is changed."""
        self._rng = rng
        self._path = path
        self._name = name
        self._pairs = pairs
        self._changes = changes
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._said: list[bytes] = [b""]
        self._serving: asyncio.Task[None] | None = None

    async def connect(self, state: int, *, changes: float) -> bool:
        """Introduce itself; whether the agent lets it stay."""
        loop = asyncio.get_running_loop()
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:  # by way of the descriptor: the path may be longer than a socket's address
            await loop.sock_connect(self._connection, f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)
        hello = {
            "token": int(self._name, 16),
            "pid": 7,
            "state": state,
            "contexts": 1,
            "build_id": b"\xab" * 20,
        }
        packet = WIRE.pack("HELLO", hello)
        with contextlib.suppress(OSError):
            await self._send(
                (changed_bytes(self._rng, packet) or b"?") if self._rng.random() < changes else packet
            )
            if await loop.sock_recv(self._connection, 1 << 16):
                self._serving = asyncio.ensure_future(self._serve())
                return True
        return False

    async def ask(self, times: int) -> None:
        """Ask where queue pairs are, each time of its own first one or of what comes of that by a change."""
        pair = self._pairs[0]
        body = {"context": 1, "vqpn": pair["vqpn"], "pqpn": pair["pqpn"], "qpn": pair["vqpn"]}
        body |= dict.fromkeys(("vgid", "gid", "dgid"), pair["sgid"])
        with contextlib.suppress(OSError):
            for ident in range(times):
                packet = WIRE.pack("WHERE", body, ident=ident)
                changed = self._rng.random() < self._changes
                await self._send(changed_bytes(self._rng, packet, self._said) if changed else packet)

    async def close(self) -> None:
        """Go away, and see what the agent has to say of the answers."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        self._connection.close()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._connection, 1 << 16):
                message = WIRE.unpack(data)
                if message.kind == "THERE":
                    continue  # what it has asked for
                for packet in self._answers(message):
                    await self._send(packet)
                if message.kind == "PARK" and message.body["flags"]:
                    break
        self._connection.close()

    async def _send(self, packet: bytes) -> None:
        if packet:  # an empty one is the end of the connection
            await asyncio.get_running_loop().sock_sendall(self._connection, packet)

    def _answers(self, message: Message) -> list[bytes]:
        kind = WIRE.kinds[message.kind].reply
        body, records = self._answer(message)
        # Of parts only the last may have room for more: an agent refuses this, and must be able to.
        apart = len(records) > 1 and self._rng.random() < self._changes
        parts = [records[:1], records[1:]] if apart else [records]
        found = [
            WIRE.pack(kind, body, part, ident=message.ident, more=part is not parts[-1]) for part in parts
        ]
        for at, packet in enumerate(found):
            if self._rng.random() < self._changes:
                found[at] = changed_bytes(self._rng, packet, self._said)
        self._said = [*self._said[-8:], *found]
        return found

    def _answer(self, message: Message) -> Answer:
        device = {"context": 1, "device": b"rxe0", "real_device": b"rxe0", "ports": 1}
        match message.kind:
            case "INVENTORY":
                reasons = [{"text": b"an XRC domain"}] if self._rng.random() < self._changes / 3 else []
                return {"contexts": 1, "qps": len(self._pairs), "mrs": 2, "migratable": not reasons}, reasons
            case "LIST_CONTEXTS":
                return {}, [device]
            case "LIST_MRS":
                regions = [
                    {"context": 1, "addr": 4096 * n, "length": 10, "vrkey": n, "prkey": n + 1} for n in (1, 2)
                ]
                return {}, regions
            case "LIST_ADDRESSES":
                gid = self._pairs[0]["sgid"] if self._pairs else bytes(16)
                own = {"context": 1, "port": 1, "index": 1, "vgid": gid, "gid": gid}
                return {}, [{**own, "kind": kind} for kind in (1, 3)]
            case "LIST_QPS" | "FIND" | "REBUILD" | "PREPARE":
                return {}, self._pairs
            case _:
                failed = self._rng.random() < self._changes / 3
                names = [{"context": pair["context"], "vqpn": pair["vqpn"]} for pair in self._pairs]
                return {"error": 110 if failed else 0, "text": b"why"}, names if failed else []
