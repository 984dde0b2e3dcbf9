"""What an installation did to this host, in ``/var/lib/migrrdma/install.json``.

It is written *before* the changes it describes: an installation that was killed in the middle is then known
in full, and running ``install`` or ``uninstall`` again completes it either way.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from migrrdma_runtime.base import files
from migrrdma_runtime.base.errors import InstallError

FILE = "/var/lib/migrrdma/install.json"

_VERSION = 1
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["version", "files", "directories", "docker"],
    "properties": {
        "version": {"const": _VERSION},
        "files": {"type": "object", "additionalProperties": {"type": "string"}},
        "directories": {"type": "array", "items": {"type": "string"}},
        "docker": {
            "type": ["object", "null"],
            "required": ["config", "path", "inserted", "created"],
            "properties": {
                "config": {"type": "string"},
                "path": {"type": "string"},
                "inserted": {"type": "string"},
                "created": {"type": "boolean"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}


@dataclass(frozen=True)
class DockerEdit:
    """Our entry in Docker's configuration: what it takes to remove it to the byte."""

    config: str
    path: str
    inserted: str
    created: bool


@dataclass(frozen=True)
class Record:
    """The files (with the digest of what was put there), directories and Docker entry that are ours."""

    files: dict[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    docker: DockerEdit | None = None

    def with_file(self, name: str, content: bytes) -> Record:
        """The record of one more file."""
        return replace(self, files={**self.files, name: digest(content)})

    def with_directories(self, names: list[str]) -> Record:
        """The record of more directories, outermost first."""
        return replace(self, directories=tuple(dict.fromkeys((*self.directories, *names))))


def digest(content: bytes) -> str:
    """What tells our file from a changed one."""
    return hashlib.sha256(content).hexdigest()


def load(path: Path) -> Record:
    """Read the record; without one, nothing is ours."""
    if not path.exists():
        return Record()
    import jsonschema  # a tenth of a second: only for what is there to be judged

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(document, _SCHEMA)
    except (OSError, ValueError, jsonschema.ValidationError) as error:
        reason = error.message if isinstance(error, jsonschema.ValidationError) else error
        raise InstallError(
            f"{path}, the record of the installation, cannot be used: {reason}; "
            "remove it to go on without (files of ours are then recognised by their names)"
        ) from error
    docker = document["docker"]
    return Record(
        document["files"],
        tuple(document["directories"]),
        DockerEdit(**docker) if docker is not None else None,
    )


def save(path: Path, record: Record) -> None:
    """Write the record."""
    document = {"version": _VERSION, **asdict(record)}
    files.replace(path, (json.dumps(document, indent=2) + "\n").encode(), mode=0o600)
