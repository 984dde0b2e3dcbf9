"""How the agent's log lines look: for people, or one JSON object to a line; and nothing in them steers a terminal.

A record may carry members of its own (``extra={"migration": …}``); those named in ``MEMBERS`` are in the JSON.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from migrrdma_runtime.base.escaping import printable

FORMATS = ("text", "json")
"""What ``MIGRRDMA_LOG_FORMAT`` may be."""

MEMBERS = ("migration", "role", "peers", "container", "state", "before", "reason", "step", "seconds")
"""Members of a record that are about a migration, as far as it has them; a step's length is in seconds."""

_NAMED = re.compile(r"\bmigration ([0-9a-f]{16})\b")


def set_up(level: str, form: str) -> None:
    """Log to stderr in this form, from this level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler])


class _Text(logging.Formatter):
    """``INFO message``: systemd's journal has the time already. Of what follows, a line of its own is ours."""

    def format(self, record: logging.LogRecord) -> str:
        lines = [f"{record.levelname} {printable(record.getMessage())}"]
        if record.exc_info:
            lines += map(printable, self.formatException(record.exc_info).splitlines())
        return "\n".join(lines)


class _Json(logging.Formatter):
    """One object to a line; JSON has its own escapes for control characters, and all else is ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        entry: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("migrrdma_runtime."),
            "message": message,
        }
        if named := _NAMED.search(message):
            entry["migration"] = named[1]
        entry |= {name: record.__dict__[name] for name in MEMBERS if name in record.__dict__}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)
