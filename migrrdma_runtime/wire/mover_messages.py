"""What movers say to each other: a container on its way from one host to another, and what of it is to be there first.

The mover of the host that a container leaves (``mover/departure.py``) asks the one of the host that it goes to
(``mover/arrival.py``). What decides whether it has moved is the agents' (``agent/roles``); by what is here a container
is made, and removed again.
"""

from __future__ import annotations

from migrrdma_runtime.wire.agent_messages import (
    MIGRATION,
    NAME,
    SECONDS,
    STEP,
    Exchange,
    Vocabulary,
    list_of,
    record,
)
from migrrdma_runtime.wire.compiled_schema import Schema

VERSION = 2
"""Of this vocabulary."""

MOST_EVENTS = 256
"""Of a move that are told at a time to whom has asked for it elsewhere."""

CHUNK = 1 << 20
"""Bytes of a stream that are sent at a time."""

TEXT: Schema = {"type": "string", "maxLength": 4096}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 1 << 60}
IMAGE: Schema = {"type": "string", "pattern": "^(sha256:)?[0-9a-f]{64}$", "maxLength": 71}
ENGINE: Schema = {"type": "string", "pattern": "^[a-z]{1,16}$", "maxLength": 16}
GUEST: Schema = {"type": "string", "pattern": "^[0-9a-f]{8,64}$", "maxLength": 64}
"""The build-id of a guest library."""
MOUNT: Schema = {"type": "string", "maxLength": 4096}
"""A volume's name, a folder's path on a host, or where a container mounts it."""
OBSTACLE = record(what=TEXT, remedy=TEXT)
"""Why a move would fail, and what to do about it."""

_MOVE = {"move": MIGRATION}
_ORDER: Schema = {"type": "string", "pattern": "^[0-9a-f]{16}$", "maxLength": 16}

STATES = ("received", "starting", "awaiting", "restoring", "running", "failed")
"""What a container is at its destination: made; being started by its engine; its runtime waits for what it is restored
from; being restored; running, as the only copy; not started, and why."""

_STATE: Schema = {"type": "string", "pattern": f"^({'|'.join(STATES)})$", "maxLength": 16}

MOVERS = Vocabulary(
    "migrrdma.Mover",
    {
        "hello": Exchange(record(version=_COUNT), record(name=NAME, version=_COUNT)),
        # A move from there, asked for elsewhere (mover/orders.py): begun, followed to its end, and undone.
        "order": Exchange(record(options={"type": "object"}), record(order=_ORDER)),
        "follow": Exchange(
            record(order=_ORDER, wait=SECONDS),
            record(events=list_of({"type": "object"}, MOST_EVENTS), end={"type": "object"}),
        ),
        "withdraw": Exchange(record(order=_ORDER), record(cancelled={"type": "boolean"})),
        # What would hinder the move there; asked before anything is touched.
        "look": Exchange(
            record(
                description={"type": "object"},
                bytes=_COUNT,
                facts={"type": "object"},
                layers=list_of(IMAGE, 512),
                with_volumes={"type": "boolean"},
                guests=list_of(GUEST, 64),
            ),
            # ``layers``: how many of the image's need not be sent; ``mounts``: volumes and folders that are to be;
            # ``guests``: the versions of the guest library that are missing.
            record(
                obstacles=list_of(OBSTACLE, 256),
                has_image={"type": "boolean"},
                layers=_COUNT,
                mounts=list_of(MOUNT, 256),
                guests=list_of(GUEST, 64),
            ),
        ),
        # ``mounts``: of those that are missing, what is made for it and filled.
        "receive": Exchange(
            record(**_MOVE, description={"type": "object"}, mounts=list_of(MOUNT, 256)),
            record(container=TEXT),
        ),
        # Have the engine start it: answered when its runtime waits, or it has failed.
        "start": Exchange(record(**_MOVE), record(state=_STATE, error=TEXT)),
        # How it stands, at the latest after so many seconds; also a sign of life.
        "outcome": Exchange(
            record(**_MOVE, wait=SECONDS),
            record(
                state=_STATE,
                error=TEXT,
                timeline=list_of(STEP, 256),
                downtime=SECONDS,
                blackouts={"type": "object", "propertyNames": NAME, "additionalProperties": SECONDS},
                lost=list_of(TEXT),
            ),
        ),
        # It has come to nothing: remove what was made of it. ``dropped``: it is not there, and will not be.
        "drop": Exchange(record(**_MOVE, reason=TEXT), record(dropped={"type": "boolean"})),
        # It is over there: its restart policy is to be as it was.
        "finish": Exchange(record(**_MOVE), record()),
    },
    {
        # Before the container: it is made of it.
        "image": Exchange(record(engine=ENGINE, image=IMAGE), record()),
        # Likewise: it is not the move's, and stays.
        "guest": Exchange(record(guest=GUEST), record()),
        # The writable layer, or what it mounts at ``mount``; and what has changed of it since.
        "layer": Exchange(record(**_MOVE, mount=MOUNT), record()),
        # Before the latter: what of its changed folders stays (mover/layer.py).
        "stays": Exchange(record(**_MOVE, mount=MOUNT), record()),
        # Memory, ahead of the rest: what was written to since the round before.
        "round": Exchange(
            record(**_MOVE, number={"type": "integer", "minimum": 1, "maximum": 1024}), record()
        ),
        # What the container is restored from. The last stream: its runtime goes on when it is there.
        "images": Exchange(record(**_MOVE), record()),
    },
)
