"""What agents say to each other: every request and its reply, as JSON schemas.

JSON over gRPC and not protobuf, because generated code ties both ends to one protoc (Debian 12's and 13's
runtimes refuse each other's), and because everything else that crosses a trust boundary here is JSON under
a schema too. Unknown members are refused: a newer agent must ask ``hello`` for the version first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypedDict

from migrrdma_runtime.base import gids, strict_json
from migrrdma_runtime.base.errors import MessageError
from migrrdma_runtime.wire import compiled_schema
from migrrdma_runtime.wire.compiled_schema import Schema

VERSION = 7
"""Of this vocabulary; agents of different versions do not migrate between them."""

MAX_BYTES = 16 << 20
"""Of one message: the connections of 65,536 queue pairs, or a million keys, fit."""

Message = dict[str, Any]

_SPACE = 1024
"""Bytes that a message may have beside what :func:`encode` makes of it, and values in a short one."""

_BYTES_EACH = 8
"""That a value takes on the average, at the least: numbers and keys have names in front of them."""

QPN: Schema = {"type": "integer", "minimum": 0, "maximum": 0xFFFFFF}
GID: Schema = {"type": "string", "pattern": gids.PATTERN, "maxLength": 39}
PROCESS: Schema = {"type": "string", "pattern": "^[0-9a-f]{16}$", "maxLength": 16}
"""A guest's own name for itself, unchanged by a move; what a partner's key table is filed under."""
MIGRATION: Schema = {"type": "string", "pattern": "^[0-9a-f]{16}$", "maxLength": 16}
KEY: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64}
EPOCH: Schema = {"type": "integer", "minimum": 1, "maximum": 1 << 31}
GENERATION_CLAIMS = 1 << 20
"""The numbers of the claims that one arbiter of a checkpoint may grant: the next one's begin behind them."""
MOST_GENERATIONS = (1 << 31) // GENERATION_CLAIMS - 1
GENERATION: Schema = {"type": "integer", "minimum": 0, "maximum": MOST_GENERATIONS}
_NUMBER: Schema = {"type": "integer", "minimum": 0, "maximum": 1 << 31}
AGENT_NAME = r"(?=.{1,64}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*"
"""Of an agent: its host's, as it stands in its certificate. No wildcard, and nothing that a terminal would obey. A
common name has 64 characters, a label of it 63 (RFC 5280, RFC 1035)."""
NAME: Schema = {"type": "string", "pattern": f"^{AGENT_NAME}$", "maxLength": 64}
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
ADDRESS: Schema = {"type": "string", "pattern": f"^[^\\s]{{1,255}}:{_PORT}$", "maxLength": 261}
MOST_SECONDS = 1_000_000
SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": MOST_SECONDS}
START: Schema = {"type": "number", "minimum": 0, "maximum": 1 << 40}
"""Seconds since 1970."""
STATE: Schema = {"type": "string", "maxLength": 32}
STEP_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 64}


def record(**members: Schema) -> Schema:
    """An object with exactly these members."""
    return {
        "type": "object",
        "properties": members,
        "required": list(members),
        "additionalProperties": False,
    }


def list_of(items: Schema, most: int = 65_536, least: int = 0) -> Schema:
    """A list of them."""
    return {"type": "array", "items": items, "maxItems": most, "minItems": least}


class Step(TypedDict):
    """One line of a timeline: which step, on which host, from when (seconds since 1970) and for how long."""

    name: str
    host: str
    start: float
    seconds: float


@dataclass(frozen=True)
class Contact:
    """An agent: its name, and the ``host:port`` at which it is asked."""

    name: str
    address: str

    def as_message(self) -> Message:
        """As it stands in messages."""
        return {"name": self.name, "address": self.address}


STEP = record(name=STEP_NAME, host=NAME, start=START, seconds=SECONDS)
"""A :class:`Step`."""

MOST_PLACES = 1 << 12
"""That a process learns at a time."""

MOST_FOUND = 2
"""Queue pairs that are called the same: of more than one none is chosen."""

MOST_OTHERS = 1 << 10
"""Agents that one may name to whom asks it for a queue pair."""

DATAGRAMS = record(vgid=GID, vqpn=QPN, gid=GID, qpn=QPN)
"""A queue pair for datagrams: what applications call it, by one of its port's GIDs, and where it is."""

AGENT = record(name=NAME, address=ADDRESS)
"""A :class:`Contact`."""

_HELD = {"migration": MIGRATION, "key": KEY, "epoch": EPOCH}
"""What the holder of a claim shows."""


@dataclass(frozen=True)
class Exchange:
    """A request and its reply."""

    request: Schema
    reply: Schema


@dataclass(frozen=True)
class Vocabulary:
    """What may be said to one kind of server: requests, and streams, which are a request and then bytes."""

    service: str
    exchanges: dict[str, Exchange]
    streams: dict[str, Exchange] = field(default_factory=dict)


EXCHANGES: dict[str, Exchange] = {
    # Anyone, before anything else.
    "hello": Exchange(record(version=_NUMBER), record(name=NAME, version=_NUMBER)),
    # Source → partner.
    "suspend": Exchange(
        record(
            migration=MIGRATION,
            source=AGENT,
            key_digest=KEY,
            connections=list_of(record(gid=GID, qpn=QPN, peer_gid=GID, peer_qpn=QPN)),
            datagrams=list_of(DATAGRAMS, MOST_PLACES),
        ),
        record(processes=list_of(PROCESS)),
    ),
    "drain": Exchange(record(migration=MIGRATION, seconds=SECONDS), record()),
    "undo": Exchange(record(migration=MIGRATION), record()),
    # That the dump has succeeded; the reply says who decides now, which another host may do in the source's place.
    "parked": Exchange(record(migration=MIGRATION), record(generation=GENERATION, arbiter=AGENT)),
    # Who would decide in the place of a source that is gone → partner.
    "adopt": Exchange(
        record(migration=MIGRATION, key=KEY, arbiter=AGENT, generation=GENERATION, fenced=NAME), record()
    ),
    # Destination → source: the claim on a checkpoint, and the commit.
    "claim": Exchange(
        record(migration=MIGRATION, key=KEY, attempt=MIGRATION, destination=AGENT),
        record(epoch=EPOCH, timeline=list_of(STEP, 64)),
    ),
    "commit": Exchange(record(**_HELD), record()),
    "release": Exchange(record(**_HELD), record()),
    "finish": Exchange(record(**_HELD), record()),
    # Destination → partner.
    "confirm": Exchange(record(**_HELD), record(state=STATE)),
    "prepare": Exchange(
        record(
            **_HELD,
            destination=AGENT,
            connections=list_of(
                record(
                    gid=GID, qpn=QPN, new_peer_gid=GID, new_peer_qpn=QPN, sq_psn=QPN, rq_psn=QPN, peer=PROCESS
                ),
            ),
            places=list_of(
                record(vgid=GID, vqpn=QPN, gid=GID, qpn=QPN, new_gid=GID, new_qpn=QPN), MOST_PLACES
            ),
            # Remote keys as they are now: base64 of pairs of 32-bit numbers, virtual and physical.
            keys={
                "type": "object",
                "propertyNames": PROCESS,
                "additionalProperties": {"type": "string", "contentEncoding": "base64"},
            },
        ),
        record(
            connections=list_of(record(gid=GID, qpn=QPN, new_gid=GID, new_qpn=QPN, process=PROCESS)),
            # Of which the process has ended, or has closed the queue pair.
            lost=list_of(record(gid=GID, qpn=QPN, reason={"type": "string", "maxLength": 1024})),
        ),
    ),
    "retract": Exchange(record(**_HELD), record()),
    "switch": Exchange(record(**_HELD), record(blackout=SECONDS)),
    # Whoever hears nothing → both ends.
    "outcome": Exchange(
        record(migration=MIGRATION),
        record(state=STATE, epoch=_NUMBER, holder={"anyOf": [AGENT, {"type": "null"}]}),
    ),
    # Whoever is about to connect a queue pair → the agents of where the other end is, or was.
    "where": Exchange(
        record(asker=AGENT, gid=GID, qpn=QPN, from_gid=GID, from_qpn=QPN),
        record(
            # Those that are called so here, and may be connected to by who asks.
            found=list_of(
                record(
                    gid=GID,
                    qpn=QPN,
                    process=PROCESS,
                    keys={"type": "string", "contentEncoding": "base64", "maxLength": 6 << 20},
                    # By more than the word of the process.
                    proven={"type": "boolean"},
                ),
                MOST_FOUND,
            ),
            # Another process than these, that has not moved, has that very number at that very GID.
            here={"type": "boolean"},
            # The migration that one that is called so takes part in; empty: none.
            moving={"type": "string", "pattern": "^([0-9a-f]{16})?$", "maxLength": 16},
            # Nothing has moved there, and nothing does for a second: who asks may say so himself.
            quiet={"type": "boolean"},
            # To where processes have gone that were called by this GID.
            others=list_of(AGENT, MOST_OTHERS),
        ),
    ),
    # Source → the agents at home of the names of what it had: where that is now.
    "moved_on": Exchange(
        record(agent=AGENT, names=list_of(record(gid=GID, process=PROCESS), 1 << 14)), record()
    ),
    "holding": Exchange(record(migration=MIGRATION, epoch=EPOCH), record(state=STATE)),
}

AGENTS = Vocabulary("migrrdma.Agent", EXCHANGES)

UNKNOWN = "unknown"
"""The state of a migration that an agent has no record of. Nothing that could still commit is ever forgotten,
so it means: ended, and not by a commit."""


def decode(data: bytes, schema: Schema, what: str) -> Message:
    """Parse and validate; the error says where in the message the fault is.

    Before it is parsed, which takes many times its length of memory: no message that fits is longer, or denser.
    """
    longest = min(MAX_BYTES, compiled_schema.longest(schema) + _SPACE)
    if len(data) > longest:
        raise MessageError(f"{what}: {len(data)} bytes, more than the {longest:.0f} that are allowed")
    if sum(map(data.count, (b",", b"[", b"{"))) > _SPACE + len(data) // _BYTES_EACH:
        raise MessageError(f"{what}: more values than such a message has")
    try:
        message = strict_json.parse(data)
    except ValueError as error:
        raise MessageError(f"{what}: not JSON ({error})") from error
    return check(message, schema, what)


def check(message: Any, schema: Schema, what: str) -> Message:
    """Validate a parsed message."""
    misfit = compiled_schema.misfit(message, schema)
    if misfit is not None:
        raise MessageError(f"{what}: {misfit}")
    checked: Message = message
    return checked


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return json.dumps(message, separators=(",", ":")).encode()
