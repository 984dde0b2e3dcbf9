"""What outlives a mover: every move that is under way here, and the last ones that have ended, in SQLite."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from migrrdma_runtime.base.errors import StoreError

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE move (
    id      TEXT NOT NULL,
    side    TEXT NOT NULL,
    data    TEXT NOT NULL,
    ended   INTEGER NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (id, side)
) WITHOUT ROWID
"""
_KEEP_ENDED_S = 7 * 86400


@dataclass
class Departing:
    """A container that leaves this host."""

    side = "departure"

    id: str
    engine: str
    container: str
    name: str
    root: str
    """Where the low-level runtime keeps it."""
    destination: dict[str, str]
    """The mover there: its agent's name, and its own address."""
    restart: dict[str, Any]
    """The restart policy that it had."""
    keep_source: bool
    state: str = "preparing"
    """``preparing``, ``stopping`` (the runtime may have frozen it), ``moved``, ``undone``."""
    ended: bool = False
    error: str = ""
    started: float = field(default_factory=time.time)
    receipt: dict[str, Any] = field(default_factory=dict)


@dataclass
class Arriving:
    """A container that comes to this host."""

    side = "arrival"

    id: str
    source: str
    """The name of the agent it comes from."""
    engine: str
    name: str
    restart: dict[str, Any]
    container: str = ""
    """Its id here, once it is made."""
    made: list[str] = field(default_factory=list)
    """Volumes and folders that were made for it, and are filled: they go with it if it does not stay."""
    state: str = "received"
    ended: bool = False
    error: str = ""
    started: float = field(default_factory=time.time)


M = TypeVar("M", Departing, Arriving)


class Book(Generic[M]):
    """The moves of one side. Every change is on the disk when it returns, or raises `StoreError`."""

    def __init__(self, path: Path, kind: type[M]) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise StoreError(
                    f"{path} was written by a newer mover (schema {version}): run that one, or remove the file "
                    "when its moves have ended"
                )
            if version == 0:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            self._db.execute(
                "DELETE FROM move WHERE ended AND side = ? AND updated < ?",
                (kind.side, time.time() - _KEEP_ENDED_S),
            )
            rows = self._db.execute("SELECT data FROM move WHERE side = ?", (kind.side,)).fetchall()
            known = {one.name for one in kind.__dataclass_fields__.values()}
            self.moves: dict[str, M] = {}
            for (data,) in rows:
                members = {key: value for key, value in json.loads(data).items() if key in known}
                self.moves[members["id"]] = kind(**members)
        except (sqlite3.Error, OSError, ValueError, TypeError, KeyError) as error:
            raise self._failure(error) from error

    def write(self, move: M, **changes: Any) -> None:
        """Keep it as it is now, with these changes, or leave it as it was."""
        after = {**asdict(move), **changes}
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO move VALUES (?, ?, ?, ?, ?)",
                (move.id, move.side, json.dumps(after), after["ended"], time.time()),
            )
        except sqlite3.Error as error:
            raise self._failure(error) from error
        for name, value in changes.items():
            setattr(move, name, value)
        self.moves[move.id] = move

    def under_way(self) -> list[M]:
        """Those that have not ended, oldest first."""
        return sorted((one for one in self.moves.values() if not one.ended), key=lambda one: one.started)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(
            f"the mover's state {self._path}: {error}; make room there, or set state_dir in agent.toml"
        )
