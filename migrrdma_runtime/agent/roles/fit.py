"""Whether a checkpoint can be restored on this host, found out before anything is claimed."""

from __future__ import annotations

from migrrdma_runtime.agent.local.devices import GidEntry, shortfalls
from migrrdma_runtime.agent.local.guest_objects import GidChange
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import AgentError, ManifestError, RestoreError
from migrrdma_runtime.wire.agent_messages import Message

NewDevices = dict[tuple[str, int], tuple[str, list[GidChange]]]
"""For each context of each process, the device of this host and where the GIDs in use are on it."""


def find_devices(agent: ThisAgent, document: Message) -> NewDevices:
    """The devices here for a manifest's contexts.

    Raises, by what does not fit: `ManifestError` for a checkpoint that cannot be restored anywhere, `RestoreError` for
    a missing guest library or a smaller device, `AgentError` where no device or GID takes the place of another.
    """
    if document["left_running"]:
        raise ManifestError(
            "the container went on running after this checkpoint (--leave-running), and its partners "
            "with it: its connections cannot be restored from it"
        )
    for guest in document["guests"]:
        library = agent.config.guest_dir / guest["build_id"] / paths.GUEST_LIBRARY
        if not library.is_file():
            raise RestoreError(
                f"process {guest['pid']} ({guest['command']}) was dumped with the guest library of "
                f"build-id {guest['build_id']}, which is not here: copy {library.parent} from "
                f"{document['source']['name']}"
            )
    for name, needed in document["devices"].items():
        offered = agent.devices.capabilities(agent.devices.counterpart(name))
        if short := shortfalls(needed, offered):
            raise RestoreError(f"the RDMA device here cannot carry what {name} did: {'; '.join(short)}")
    return {
        (guest["process"], context["context"]): _device_for(agent, context)
        for guest in document["guests"]
        for context in guest["contexts"]
    }


def _device_for(agent: ThisAgent, context: Message) -> tuple[str, list[GidChange]]:
    device = agent.devices.counterpart(context["device"])
    changes = []
    for used in context["gids"]:
        if not used["used"] and not agent.config.late_comers:
            continue  # nobody would find it by what it was
        there = GidEntry(used["port"], used["index"], used["gid"], used["type"])
        try:
            new = agent.devices.counterpart_of_gid(there, device)
        except AgentError:
            if used["used"]:
                raise
            continue  # the application sees what the device has there
        changes.append(GidChange(there.port, there.index, new.port, new.index))
    return device, changes
