"""One guest: a process with the guest library, on a connection of its own.

A request to it has a deadline; a guest that lets one pass, or answers what the protocol does not have, is dropped, and
it may connect anew. docs/protocol.md has the messages; ``wire/guest_messages.py`` their layout.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from migrrdma_runtime.agent.local.budget import MOST_OF_AN_ANSWER, Budget
from migrrdma_runtime.agent.local.containers import Process
from migrrdma_runtime.agent.local.guest_objects import (
    Address,
    AddressKind,
    Connect,
    Context,
    Domain,
    GidChange,
    GuestState,
    Inventory,
    MemoryRegion,
    QPName,
    Question,
    QueuePair,
    There,
)
from migrrdma_runtime.agent.local.looks import Looks
from migrrdma_runtime.agent.local.usable_keys import Numbers, by_domain, srqs_by_domain
from migrrdma_runtime.base import fault_points, gids
from migrrdma_runtime.base.errors import DrainError, GuestError, MessageError
from migrrdma_runtime.wire.guest_messages import WIRE, Message, text

_log = logging.getLogger(__name__)

MESSAGE_MAX = WIRE.constants["MIG_MESSAGE_MAX"]
_SCOPE_ALL = WIRE.constants["MIG_SCOPE_ALL"]
_SCOPE_LISTED = WIRE.constants["MIG_SCOPE_LISTED"]
_PARK_CLOSE = WIRE.constants["MIG_PARK_CLOSE"]
_RESTORED = WIRE.constants["MIG_REBUILD_RESTORED"]

Values = dict[str, Any]

_COUNTED = ("contexts", "pds", "mrs", "channels", "cqs", "srqs", "qps", "keys", "mr_bytes", "receives")
"""Members of an inventory that say how many there are."""

_LAST_QPN = 0xFFFFFF

_LOOK_S = 2.0
"""For the look from outside at a guest whose deadline has passed."""


@dataclass
class _Answer:
    """What has come of an answer, and who waits for all of it."""

    whole: asyncio.Future[list[Message]]
    parts: list[Message] = field(default_factory=list)
    records: int = 0


class Guest:
    """One connected process."""

    def __init__(
        self,
        connection: socket.socket,
        process: Process,
        container: str,
        hello: dict[str, Any],
        budget: Budget,
        looks: Looks,
        on_question: Callable[[Guest, Question], None] | None = None,
    ) -> None:
        self.process = process
        self.container = container
        self.name = f"{hello['token']:016x}"
        self.build_id = bytes(hello["build_id"]).hex()
        self.pid_in_container = int(hello["pid"])
        self.state = GuestState(hello["state"])
        self.differs = bool(hello.get("differs"))
        """Whether a queue pair of it may have another number or GID than its application knows."""
        self._connection = connection
        self._next_id = 1
        self._sending = asyncio.Lock()
        self._hung_up = asyncio.Event()
        self._answers: dict[int, _Answer] = {}
        self._asked: set[asyncio.Task[list[Message]]] = set()
        self._budget = budget
        self.owner, self.asking, self.charged = budget.owner, budget.asking, budget.charged
        self._looks = looks
        self._on_question = on_question

    def __str__(self) -> str:
        """How a message names it."""
        where = f"container {self.container:.12}" if self.container else "no container"
        return f"{self.process} in {where}"

    async def inventory(self, timeout: float | None) -> Inventory:
        """Counts of objects, and the reasons against a move."""
        [first, *more] = await self._request("INVENTORY", timeout)
        counts = {key: int(first.body[key]) for key in _COUNTED}
        for listed, count in (("CONTEXTS", "contexts"), ("QPS", "qps"), ("MRS", "keys")):
            if counts[count] > MOST_OF_AN_ANSWER[listed]:
                raise GuestError(
                    f"{self} has {counts[count]} {count}; {MOST_OF_AN_ANSWER[listed]} are the most that can be moved"
                )
        reasons = tuple(text(one["text"]) for message in (first, *more) for one in message.records)
        if not first.body["migratable"]:
            reasons = reasons or ("it does not say why",)
        return Inventory(counts, reasons)

    async def contexts(self, timeout: float) -> list[Context]:
        """The open devices."""
        records = _records(await self._request("LIST_CONTEXTS", timeout))
        return [
            Context(one["context"], text(one["device"]), text(one["real_device"]), one["ports"])
            for one in records
        ]

    async def queue_pairs(self, timeout: float) -> list[QueuePair]:
        """Every queue pair."""
        answer = await self._request("LIST_QPS", timeout)
        with self._budget.working():
            return _queue_pairs(answer)

    async def find(self, gid: str, qpn: int, timeout: float) -> list[QueuePair]:
        """Those that the application calls so; at ``sgid`` is what it knows as that GID, if that has moved."""
        body = {"vqpn": qpn, "vgid": gids.packed(gid)}
        answer = await self._request("FIND", timeout, body, strikes=False)
        with self._budget.working():
            return _queue_pairs(answer)

    async def answer(self, question: Question, there: There, timeout: float) -> None:
        """Tell a thread of it that waits."""
        body = {
            "error": there.error,
            "qpn": there.qpn,
            "peer": int(there.peer, 16),
            "keys": len(there.keys),
            "gid": gids.packed(there.gid),
            # Ends with a zero, whatever there is of it.
            "text": there.text.encode(errors="replace")[: WIRE.constants["MIG_TEXT"] - 1],
        }
        records = [{"vrkey": virtual, "prkey": physical} for virtual, physical in there.keys]
        try:
            async with asyncio.timeout(timeout):
                for part, more in _parts("THERE", records):
                    packet = WIRE.pack("THERE", body, part, ident=question.ident, more=more)
                    async with self._sending:
                        await asyncio.get_running_loop().sock_sendall(self._connection, packet)
        except TimeoutError:
            self.drop(f"an answer was not read within {timeout:g} s")
        except OSError as error:
            _log.info("%s did not hear where a queue pair is: %s", self, error.strerror)

    async def remote_numbers(self, timeout: float) -> tuple[dict[Domain, Numbers], dict[Domain, Numbers]]:
        """What the other ends of each domain's queue pairs are told of the keys here, and of the shared queues."""
        answer = await self._request("LIST_MRS", timeout)
        with self._budget.working():
            records = _records(answer)
            return by_domain(records), srqs_by_domain(records)

    async def memory_regions(self, timeout: float) -> list[MemoryRegion]:
        """Every memory region."""
        answer = await self._request("LIST_MRS", timeout)
        with self._budget.working():
            return [
                MemoryRegion(one["addr"], one["length"], one["access"], one["vlkey"])
                for one in _records(answer)
                if one["length"]  # what is in the list only for its keys, or for a number, has none
            ]

    async def addresses(self, timeout: float) -> list[Address]:
        """From where it sends datagrams, and to where; nothing if it has no queue pair for them."""
        answer = await self._request("LIST_ADDRESSES", timeout)
        with self._budget.working():
            found = {
                (one["context"], one["kind"], one["port"], one["index"], one["vgid"], one["gid"])
                for one in _records(answer)
            }
            if not {one[1] for one in found} <= set(AddressKind):
                raise MessageError(f"{self} lists an address of a kind that is none")
            return [
                Address(context, AddressKind(kind), port, index, gids.from_bytes(vgid), gids.from_bytes(gid))
                for context, kind, port, index, vgid, gid in sorted(found)
            ]

    async def learn_places(self, places: list[Values], timeout: float) -> None:
        """Learn where queue pairs for datagrams will be once it is resumed; of `place_records`."""
        for part, more in _parts("PLACES", places):
            await self._command("PLACES", timeout, {}, part, more=more)

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
            await self._command("QUIESCE", left + timeout, {**scope, **limits}, part)
        self.state = GuestState.QUIESCED

    async def undo(self, timeout: float) -> None:
        """Undo whatever was begun, down to nothing; the connections are the old ones."""
        await self._command("UNDO", timeout)
        self.state = GuestState.RUNNING

    async def park(self, timeout: float) -> None:
        """Touch the device no more; nothing is made, connected or destroyed from now on."""
        await self._command("PARK", timeout, {"flags": 0})
        self.state = GuestState.PARKED

    async def hang_up(self, timeout: float) -> None:
        """Close this connection, of a parked guest: the process is about to be dumped."""
        try:
            await self._command("PARK", timeout, {"flags": _PARK_CLOSE})
        except GuestError:
            # Its answer is lost with what it has not read when it closes: the kernel calls that a reset. It was parked
            # already, and makes no connection by itself until it is called.
            if not self._hung_up.is_set():
                raise
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
        self.differs = True
        answer = await self._request("REBUILD", timeout, body, [vars(change) for change in changes])
        return [pair for pair in _queue_pairs(answer) if pair.name.context == context]

    async def prepare(self, names: list[QPName], timeout: float) -> list[QueuePair]:
        """Make a successor for each of these queue pairs, beside it; says the new numbers."""
        self.differs = True
        answer: list[Message] = []
        for scope, part in _scopes("PREPARE", names):
            answer = await self._request("PREPARE", timeout, scope, part)
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
            await self._command("CONNECT", timeout, {}, part)

    async def learn_keys(self, peer: str, keys: Numbers, timeout: float, *, srqs: bool = False) -> None:
        """Take over the rkeys of what `Connect` has called ``peer``, a protection domain of the other end's process.

        ``srqs``: or the numbers of its shared receive queues.
        """
        records = [{"vrkey": virtual, "prkey": physical} for virtual, physical in keys]
        for part, more in _parts("KEYS", records):
            await self._command("KEYS", timeout, {"peer": int(peer, 16)}, part, more=more, srqs=srqs)

    async def resume(self, timeout: float) -> None:
        """Go on, on the new queue pairs where there are any: what was kept back is sent now."""
        await self._command("RESUME", timeout)
        self.state = GuestState.RUNNING

    async def _command(
        self,
        kind: str,
        timeout: float,
        body: Values | None = None,
        records: Any = (),
        *,
        more: bool = False,
        srqs: bool = False,
    ) -> None:
        """Ask for something that is answered by DONE, and raise what it says went wrong."""
        answer = await self._request(kind, timeout, body, records, more=more, srqs=srqs)
        try:
            _raise_for(self, kind, answer)
        except DrainError:
            raise
        except GuestError as error:
            late = abs(int(answer[0].body["error"])) in (errno.ETIMEDOUT, errno.EINPROGRESS)
            if late and (seen := await self._seen_from_outside()):
                raise GuestError(f"{error}: {seen}") from error
            raise

    async def _seen_from_outside(self) -> str:
        """What keeps the process, as far as it can be seen without its help; empty: that is not to be seen."""
        # It may be the first thing that goes wrong: until then nobody needs the modules.
        from migrrdma_runtime.inspection.process import stall_of

        try:
            async with asyncio.timeout(_LOOK_S):
                return await self._looks.at(self._budget.owner, stall_of, self.process.pid)
        except TimeoutError:
            return ""

    async def _request(
        self,
        kind: str,
        timeout: float | None,
        body: Values | None = None,
        records: Any = (),
        *,
        more: bool = False,
        srqs: bool = False,
        strikes: bool = True,
    ) -> list[Message]:
        """Send a request and collect its answer, which may take several messages.

        ``timeout``: seconds, after which the connection is ended; None: as long as the connection lasts. ``strikes``:
        it is a step of a migration.

        Whoever asks may go away, as another agent does that has waited long enough. The process answers all the same,
        and that would be an answer to nothing: so it is waited for, in the time that it has.
        """
        identity = self._next_id
        self._next_id = identity % 0xFFFFFFFF + 1
        self._answers[identity] = _Answer(asyncio.get_running_loop().create_future())
        ask = self._ask(identity, kind, timeout, body, records, more=more, srqs=srqs, strikes=strikes)
        asked = asyncio.create_task(ask)
        self._asked.add(asked)
        asked.add_done_callback(self._has_been_asked)
        return await asyncio.shield(asked)

    def _has_been_asked(self, asked: asyncio.Task[list[Message]]) -> None:
        self._asked.discard(asked)
        if not asked.cancelled():
            asked.exception()  # which nobody may be there to hear

    async def _ask(
        self,
        identity: int,
        kind: str,
        timeout: float | None,
        body: Values | None,
        records: Any,
        *,
        more: bool,
        srqs: bool,
        strikes: bool,
    ) -> list[Message]:
        loop, awaited = asyncio.get_running_loop(), self._answers[identity]
        try:
            async with asyncio.timeout(timeout):
                packet = WIRE.pack(kind, body, records, ident=identity, more=more, srqs=srqs)
                with (
                    fault_points.around(fault_points.Action(f"tell.{kind}"))
                    if strikes
                    else contextlib.nullcontext()
                ):
                    async with self._sending:
                        await loop.sock_sendall(self._connection, packet)
                    answer = await awaited.whole
        except TimeoutError as error:
            self.drop(f"no answer to {kind} within {timeout:g} s")
            seen = await self._seen_from_outside() or "is it stopped?"
            raise GuestError(f"{self} did not answer {kind.lower()} within {timeout:g} s: {seen}") from error
        except OSError as error:
            if self._hung_up.is_set():  # "Bad file descriptor", of the end that we have closed, says nothing
                raise GuestError(f"{self} closed its connection to the agent") from error
            raise GuestError(
                f"{self} did not hear {kind.lower()}, as its connection to the agent is lost: {error.strerror}"
            ) from error
        finally:
            del self._answers[identity]
            self._budget.give_back(awaited.records)
        if answer[0].kind != WIRE.kinds[kind].reply:
            _raise_for(self, kind, answer)
            raise MessageError(f"{self} answered {kind} by {answer[0].kind}")
        return answer

    async def read(self) -> None:
        """Take messages until the connection ends."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._connection, MESSAGE_MAX + 1):
            with self._budget.working():
                self._take(unpack(data))
            # What has come already is received without a wait: a guest that talks on would have the loop to itself.
            await asyncio.sleep(self._budget.rest())

    def _take(self, message: Message) -> None:
        """Keep a part of an answer, or all of it; have a question answered."""
        if message.kind == "WHERE":
            self._take_question(message)
            return
        answer = self._answers.get(message.ident)
        if answer is None or answer.whole.done():
            raise MessageError(f"{message.kind} answers nothing that was asked (id {message.ident})")
        count = len(message.records)
        if message.more and (not count or count != _room(message.kind)):
            raise MessageError(
                f"a part of {message.kind} with {count} records, where {_room(message.kind)} have room"
            )
        most = MOST_OF_AN_ANSWER.get(message.kind, 0)
        if answer.records + count > most:
            raise MessageError(f"{message.kind} with more than {most} records")
        self._budget.take(count)
        answer.records += count
        answer.parts.append(message)
        if not message.more:
            answer.whole.set_result(answer.parts)

    def _take_question(self, message: Message) -> None:
        if self._on_question is None:
            raise MessageError("a question, though it was told that none is answered")
        body = message.body
        vgid, gid, asked = (gids.from_bytes(bytes(body[name])) for name in ("vgid", "gid", "dgid"))
        if max(body["qpn"], body["vqpn"], body["pqpn"]) > _LAST_QPN:
            raise MessageError("a question about a number that no queue pair has")
        self.asking.began()
        self._on_question(
            self, Question(message.ident, asked, body["qpn"], vgid, gid, body["vqpn"], body["pqpn"])
        )

    def log(self, level: int, text: str, *arguments: object) -> None:
        """Log something about this connection, of which there may be any number."""
        self._budget.log(_log, level, text, *arguments)

    def drop(self, reason: str) -> None:
        """End the connection; the guest may make another one."""
        self.log(logging.WARNING, "dropping %s: %s", self, reason)
        with contextlib.suppress(OSError):  # it may have gone by itself
            self._connection.shutdown(socket.SHUT_RDWR)

    def connection_ended(self) -> None:
        """Tell whoever waits for an answer that there will be none."""
        self._hung_up.set()
        for answer in self._answers.values():
            if not answer.whole.done():
                answer.whole.set_exception(GuestError(f"{self} closed its connection to the agent"))


def place_records(places: list[Values]) -> list[Values]:
    """What agents say of places in *prepare*, for guests: once for all of them, of whom there may be thousands."""
    return [
        {
            **{name: one[name] for name in ("vqpn", "qpn", "new_qpn")},
            **{name: gids.packed(one[name]) for name in ("vgid", "gid", "new_gid")},
        }
        for one in places
    ]


def _parts(kind: str, records: list[Values]) -> Iterator[tuple[list[Values], bool]]:
    """The records, as many at a time as a message holds, and whether there are more; at least one part."""
    room = _room(kind)
    for at in range(0, max(1, len(records)), room):
        yield records[at : at + room], at + room < len(records)


def _room(kind: str) -> int:
    """How many records a message of this kind holds."""
    shape = WIRE.kinds[kind]
    return (MESSAGE_MAX - WIRE.layouts["mig_header"].size - shape.body.size) // (
        shape.record.size or MESSAGE_MAX
    )


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
    # Of the kernel's numbers none is larger; of any integer whatever, strerror() makes an OverflowError.
    meant = os.strerror(abs(error)).lower() if abs(error) < 4096 else f"error {error}"
    reason = f"{text(answer[0].body['text'])}: {meant}".removeprefix(": ")
    stuck = _some([f"QP 0x{one['vqpn']:x}" for one in _records(answer)])
    # Without a queue pair's name it was not the drain: a verb kept even the look at it from being made.
    if kind == "QUIESCE" and error == errno.ETIMEDOUT and stuck:
        raise DrainError(
            f"{guest} did not drain within the deadline ({stuck}): the other ends post no receives, or hang"
        )
    raise GuestError(f"{guest}: {kind.lower()}: {reason}{f' ({stuck})' if stuck else ''}")


def unpack(packet: bytes) -> Message:
    """The message in a datagram; an empty one is the end of the connection."""
    if not packet:
        raise MessageError("the connection ended before a word was said")
    return WIRE.unpack(packet)


def _records(answer: list[Message]) -> list[Values]:
    return [record for message in answer for record in message.records]


def _queue_pairs(answer: list[Message]) -> list[QueuePair]:
    same = (
        "pqpn",
        "next_pqpn",
        "type",
        "state",
        "dest_vqpn",
        "dest_pqpn",
        "port",
        "sgid_index",
        "receives",
        "pd",
    )
    return [
        QueuePair(
            name=QPName(record["context"], record["vqpn"]),
            sgid=gids.from_bytes(record["sgid"]),
            dgid=gids.from_bytes(record["dgid"]),
            **{key: record[key] for key in same},
        )
        for record in _records(answer)
    ]


def _some(names: list[str], most: int = 8) -> str:
    """A list for people: its beginning, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
