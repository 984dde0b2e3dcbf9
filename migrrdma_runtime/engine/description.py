"""What an equal container is made of, as it goes to another host, and what there would keep it from being made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from migrrdma_runtime.base.errors import MessageError
from migrrdma_runtime.engine import shape
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import Message, record
from migrrdma_runtime.wire.compiled_schema import Schema

MAX_BYTES = 1 << 20
"""Of a description. A seccomp profile of the user's is in it, and those have tens of kilobytes."""

_MOST_RETRIES = (1 << 31) - 1

_RESTART: Schema = record(
    Name={"type": "string", "pattern": "^(no|always|unless-stopped|on-failure)$", "maxLength": 16},
    MaximumRetryCount={"type": "integer", "minimum": 0, "maximum": _MOST_RETRIES},
)

DESCRIPTION: Schema = record(
    engine={"type": "string", "pattern": "^(docker|podman)$", "maxLength": 16},
    # No option of a command line begins like this.
    name={"type": "string", "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$", "maxLength": 255},
    image={"type": "string", "pattern": "^([a-zA-Z0-9][!-~]{0,510})?$", "maxLength": 511},
    image_id={"type": "string", "pattern": "^sha256:[0-9a-f]{64}$", "maxLength": 71},
    # What is read of it has a shape (`shape`); the engine that gets it judges all else.
    create={
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]*$", "maxLength": 64},
        "additionalProperties": {},
    },
    restart=_RESTART,
)
"""A `Description` as a message."""


@dataclass(frozen=True)
class Description:
    """Everything that an equal container is made of."""

    engine: str
    """``docker``, ``podman``: only the same one can make it."""
    name: str
    image: str
    """As the user has named it; empty if by nothing but its ID."""
    image_id: str
    """``sha256:`` and the digest of the image's configuration."""
    create: dict[str, Any]
    """What the engine's own create is asked for."""
    restart: dict[str, Any]
    """The restart policy, which ``create`` leaves at "no": until a move is decided, nobody starts a second copy."""

    def as_message(self) -> Message:
        """As it stands in messages between agents."""
        return _checked(asdict(self))

    @classmethod
    def from_message(cls, message: Any) -> Description:
        """What another host has sent; `MessageError` names what is wrong in it."""
        return cls(**_checked(message))


@dataclass(frozen=True)
class Obstacle:
    """Why a container could not be made or started on a host, and what its administrator can do. A line each."""

    what: str
    remedy: str
    mount: str = ""
    """The volume's name, or the folder, that it mounts and that is not here, if it could be brought along."""


def _checked(message: Any) -> Message:
    checked = agent_messages.check(message, DESCRIPTION, "description of a container")
    try:
        size = len(json.dumps(checked))
    except RecursionError:
        raise MessageError("description of a container: nested too deeply") from None
    if size > MAX_BYTES:
        raise MessageError(
            f"description of a container: {size} bytes, more than the {MAX_BYTES} that are allowed"
        )
    shape.check(checked["create"])
    return checked
