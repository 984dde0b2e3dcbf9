"""One log record for every change of a migration's state and for every step that it has taken here."""

from __future__ import annotations

import logging
from typing import Any

from migrrdma_runtime.agent.roles.outlook import peers_of
from migrrdma_runtime.agent.roles.records import AnyRecord
from migrrdma_runtime.agent.roles.store import Change

_log = logging.getLogger(__name__)


class StepsLog:
    """Told of every change of a record."""

    def changed(self, change: Change) -> None:
        """Log what is new."""
        record = change.record
        members = _members(record)
        for step in change.new_steps:
            _log.info(
                "migration %s as %s: %s took %.3f s",
                record.id,
                record.role.value,
                step["name"],
                step["seconds"],
                extra={**members, "step": step["name"], "seconds": step["seconds"]},
            )
        if change.before is record.state:
            return
        reason = f" ({record.data.reason})" if record.data.reason else ""
        before = {"before": change.before.value} if change.before else {}
        _log.info(
            "migration %s as %s: %s%s", record.id, record.role.value, record.state.value, reason,
            extra={**members, **before},
        )  # fmt: skip


def _members(record: AnyRecord) -> dict[str, Any]:
    container = getattr(record.data, "container", "")
    return {
        "migration": record.id,
        "role": record.role.value,
        "state": record.state.value,
        "peers": [one["name"] for one in peers_of(record)],
        **({"container": container} if container else {}),
        **({"reason": record.data.reason} if record.data.reason else {}),
    }
