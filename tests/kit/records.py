"""Records of migrations that have just begun, as tests need them."""

from __future__ import annotations

from migrrdma_runtime.agent.local.containers import ProcessId
from migrrdma_runtime.agent.roles.records import DestinationData, PartnerData, SourceData
from migrrdma_runtime.wire.agent_messages import Contact

_RUNTIME = ProcessId(1, "0")


def source_data(container: str = "c1") -> SourceData:
    """Of a checkpoint of this container."""
    return SourceData(container, False, "00" * 32, ["0" * 16], [], [], _RUNTIME)


def destination_data(container: str = "c2") -> DestinationData:
    """Of a restore into this container."""
    source = Contact("src", "192.0.2.1:50505")
    return DestinationData(container, source, "00" * 32, "1" * 16, [], ["0" * 16], _RUNTIME)


def partner_data() -> PartnerData:
    """Of a partner of which no process is known yet."""
    return PartnerData(Contact("src", "192.0.2.1:50505"), "00" * 32, "a boot", 0.0, [])
