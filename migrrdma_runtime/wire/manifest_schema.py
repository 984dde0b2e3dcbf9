"""The schema of ``migrrdma.json``; the sentences of docs/protocol.md about it, as data."""

from __future__ import annotations

from migrrdma_runtime.base.errors import ManifestError, MessageError
from migrrdma_runtime.wire import agent_messages, manifest
from migrrdma_runtime.wire.agent_messages import (
    AGENT,
    GID,
    KEY,
    MIGRATION,
    MOST_PLACES,
    NAME,
    PROCESS,
    QPN,
    Message,
    list_of,
    record,
)

_COUNT = {"type": "integer", "minimum": 0}
_DEVICE = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,63}$"}

GID_IN_USE = record(
    port=_COUNT, index=_COUNT, gid=GID, type={"type": "string", "maxLength": 32}, used={"type": "boolean"}
)
"""An entry of the device's GID table that some queue pair refers to, or that the application has only asked for."""

CONTEXT = record(context=_COUNT, device=_DEVICE, gids=list_of(GID_IN_USE))
"""An open device; ``device`` is the one of this host, whatever the application calls it."""

GUEST = record(
    process=PROCESS,
    pid=_COUNT,
    command={"type": "string", "maxLength": 64},
    build_id={"type": "string", "pattern": "^[0-9a-f]{40}$"},
    objects={"type": "object", "additionalProperties": _COUNT},
    contexts=list_of(CONTEXT),
    names=list_of(GID, 1 << 12),
    qpns=list_of(QPN),
)
"""A process of the container that uses RDMA; ``names``, ``qpns``: by which others may ask for its queue pairs."""

END = record(process=PROCESS, context=_COUNT, vqpn=QPN, gid=GID, qpn=QPN, peer_gid=GID, peer_qpn=QPN)
"""A connected queue pair of the container: whose it is, and both ends as the network knew them."""

DATAGRAMS = record(
    process=PROCESS, context=_COUNT, port=_COUNT, index=_COUNT, vgid=GID, vqpn=QPN, gid=GID, qpn=QPN
)
"""A queue pair of the container for datagrams, at one of the GIDs that it sends from."""

PARTNER = record(name=NAME, address=AGENT["properties"]["address"], connections=list_of(END))
"""The agent of a host with other ends."""

MANIFEST = record(
    version={"const": manifest.VERSION},
    digest=KEY,
    migration=MIGRATION,
    token=KEY,
    created={"type": "string", "maxLength": 40},
    container={"type": "string", "maxLength": 1024},
    left_running={"type": "boolean"},
    source=AGENT,
    devices={"type": "object", "propertyNames": _DEVICE, "additionalProperties": {"type": "object"}},
    guests=list_of(GUEST),
    partners=list_of(PARTNER),
    internal=list_of(END),
    datagrams=list_of(DATAGRAMS, MOST_PLACES),
)


def validate(document: Message) -> Message:
    """Check it against the schema, member by member; `ManifestError` says what does not fit."""
    manifest.check_whole(document)
    try:
        return agent_messages.check(document, MANIFEST, "the manifest")
    except MessageError as error:
        raise ManifestError(str(error)) from error
