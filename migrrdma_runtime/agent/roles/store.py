"""What outlives the agent: one row per migration and role, in SQLite.

A row's state changes only along ``states.TRANSITIONS``, and a change is on disk before :meth:`Store.move`
returns. What a role needs to go on after a restart is in the row's ``data``, as records.py has it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from migrrdma_runtime.agent.roles.names import Name, Names
from migrrdma_runtime.agent.roles.records import AnyRecord, D, Record, from_json, to_text
from migrrdma_runtime.agent.roles.states import FIRST, Role, State, may_move
from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.errors import RefusedError, StaleRecordError, StoreError
from migrrdma_runtime.wire.agent_messages import Step

_log = logging.getLogger(__name__)

_SCHEMA_VERSION = 4
_SCHEMA = """
CREATE TABLE migration (
    id      TEXT NOT NULL,
    role    TEXT NOT NULL,
    state   TEXT NOT NULL,
    data    TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    row     TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (id, role)
) WITHOUT ROWID
"""
_ADD_NAMES = """
CREATE TABLE IF NOT EXISTS name (
    gid       TEXT NOT NULL,
    process   TEXT NOT NULL,
    container TEXT NOT NULL,
    agent     TEXT NOT NULL,
    address   TEXT NOT NULL,
    qpns      TEXT NOT NULL,
    PRIMARY KEY (gid, process, container)
) WITHOUT ROWID
"""
"""Where processes are that have moved, by the GIDs that they are known by (``names.py``). What schema 4 has."""
_ADD_ROW = "ALTER TABLE migration ADD COLUMN row TEXT NOT NULL DEFAULT ''"
"""What schema 3 has and its predecessors had not."""

_READ = "SELECT id, role, state, data, created, updated, row FROM migration"
_KEEP_FINAL_S = 7 * 86400
"""Finished migrations are kept this long for ``migrrdma status``; the protocol does not need them."""
_FORGET_EVERY_S = 3600.0


@dataclass(frozen=True)
class Change:
    """What has changed of a record, for whoever watches."""

    record: AnyRecord
    before: State | None
    """The state that it had; None: it is new."""
    new_steps: list[Step]
    """Of its timeline, those that this host took since the last change."""


Watcher = Callable[[Change], None]

_RENAMED = {"aborted": "undone", "resumed": "undone"}
"""States as schema 1 called them."""


def unfinished(path: Path) -> list[AnyRecord]:
    """The migrations under way that a database knows of, whether or not its agent runs."""
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            rows = db.execute(_READ.replace("row", "''")).fetchall()  # an older agent's has none
    except sqlite3.Error as error:
        raise StoreError(f"cannot read the agent's state {path}: {error}") from error
    found = [_record(row) for row in rows]
    return [one for one in found if not one.is_final]


class Store:
    """The database; its records are shared objects, so that every holder sees the state of the moment."""

    def __init__(self, path: Path | str, host: str = "") -> None:
        self._path = str(path)
        self._host = host
        self._records: dict[tuple[str, Role], Record[Any]] = {}
        self._watchers: list[Watcher] = []
        self._forgot = 0.0
        self.names = Names()
        with self._translated("open"):
            self._db = self._open()
        self._load()

    def close(self) -> None:
        """Close the database; what was committed stays."""
        self._db.close()

    def watch(self, watcher: Watcher) -> None:
        """Have somebody told of every change, once it is made; what he raises is logged, and changes nothing."""
        self._watchers.append(watcher)

    def begin(self, migration: str, data: D, first: State | None = None) -> Record[D]:
        """Make the record of a migration that begins, replacing one that has ended; ``first``: another first state."""
        old = self._records.get((migration, data.role))
        if old is not None and not old.is_final:
            raise RefusedError(f"migration {migration} is under way here already, {old.state.value}")
        now = time.time()
        if now - self._forgot > _FORGET_EVERY_S:  # an agent may run for years
            with suppress(StoreError):  # also what begins finds no room then
                self._forget_old()
        record = Record(migration, first or FIRST[data.role], data, now, now, secrets.token_hex(8))
        with self._struck(record, record.state):
            self._insert(record)
            self._records[migration, data.role] = record
            self._tell(record, None, [])
        return record

    def move(self, record: Record[D], state: State, **changes: Any) -> None:
        """Change the state, and members of the data with it, durably or not at all."""
        if not may_move(record.role, record.state, state):
            raise self._no_way(record, state)
        self._update(record, state, changes)

    def note(self, record: Record[D], **changes: Any) -> None:
        """Change only members of the data, durably."""
        self._update(record, record.state, changes)

    def accept(self, record: Record[D], state: State, **changes: Any) -> None:
        """Change the state to what has been decided elsewhere, durably if there is room on the disk.

        A full disk changes nothing about the decision, so the record has it all the same, and the next change of
        the record writes it. Whoever reads what is on the disk instead must come to the same decision by asking.
        """
        if state is not record.state and not may_move(record.role, record.state, state):
            raise self._no_way(record, state)
        try:
            self._update(record, state, changes)
        except StoreError as error:
            if not self._is_current(record):
                raise
            _log.error("migration %s is %s, which is not on the disk: %s", record.id, state.value, error)
            self._take_over(record, self._changed(record, state, changes))

    def remember(self, record: Record[D], **changes: Any) -> None:
        """Change only members of the data, that nothing is lost without; durably if there is room on the disk."""
        self.accept(record, record.state, **changes)

    def learn_names(self, names: list[Name]) -> None:
        """Take over where processes are now."""
        with self._translated("write"), self._transaction():
            self._write_names(names)
        self.names.take(names)

    def forget(self, record: Record[Any]) -> None:
        """Keep a record no more of what is settled."""
        with self._translated("write"), self._transaction():
            self._db.execute(
                "DELETE FROM migration WHERE id = ? AND role = ?", (record.id, record.role.value)
            )
        del self._records[record.id, record.role]

    def find(self, migration: str, kind: type[D]) -> Record[D] | None:
        """The record of the role whose data are of this kind, if there is one."""
        return self._records.get((migration, kind.role))

    def all(self, kind: type[D]) -> list[Record[D]]:
        """Every record of the role whose data are of this kind, oldest first."""
        return [one for one in self.every() if one.role is kind.role]

    def every(self) -> list[Record[Any]]:
        """Every record of every role, oldest first."""
        return sorted(self._records.values(), key=lambda one: one.created)

    def _open(self) -> sqlite3.Connection:
        if self._path != ":memory:":
            Path(self._path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The rows hold the tokens of migrations under way.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, timeout=5)
        # FULL: in WAL mode the default would let a power failure take back a commit that others were told of.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    def _load(self) -> None:
        with self._translated("read"):
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise StoreError(
                    f"{self._path} was written by a newer agent (schema {version}, this one knows "
                    f"{_SCHEMA_VERSION}): run that one, or end its migrations and remove the file"
                )
            if version < _SCHEMA_VERSION:
                with self._transaction():
                    if version < 3:
                        self._db.execute(_SCHEMA if version == 0 else _ADD_ROW)
                    self._db.execute(_ADD_NAMES)
                    self._db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            rows = self._db.execute(_READ).fetchall()
            known = self._db.execute("SELECT gid, process, container, agent, address, qpns FROM name")
            self.names.take(replace(Name(*one), qpns=tuple(json.loads(qpns))) for *one, qpns in known)
        for record in map(_record, rows):
            self._records[record.id, record.role] = record
        self._forget_old()

    def _forget_old(self) -> None:
        self._forgot = time.time()
        limit = self._forgot - _KEEP_FINAL_S
        for record in [one for one in self._records.values() if one.is_settled and one.updated < limit]:
            self.forget(record)

    def _update(self, record: Record[D], state: State, changes: dict[str, Any]) -> None:
        new = self._changed(record, state, changes)
        with self._struck(record, state if state is not record.state else None):
            self._write(new, self.names.changed_by(record.state, new))
            self._take_over(record, new)

    @staticmethod
    def _changed(record: Record[D], state: State, changes: dict[str, Any]) -> Record[D]:
        return replace(record, state=state, data=replace(record.data, **changes), updated=time.time())

    def _take_over(self, record: Record[D], new: Record[D]) -> None:
        """Have the shared object be what the changed copy is."""
        before, known = record.state, _timeline(record)
        self.names.take(self.names.changed_by(before, new))
        record.state, record.data, record.updated = new.state, new.data, new.updated
        self._tell(record, before, known)

    def _tell(self, record: Record[Any], before: State | None, known: list[Step]) -> None:
        # A destination's timeline begins with the source's steps, which that one has told of, also if it is this host.
        steps = [one for one in _timeline(record) if one not in known and one["start"] >= record.created]
        change = Change(record, before, [one for one in steps if one["host"] == self._host])
        for watcher in self._watchers:
            try:
                watcher(change)
            except Exception:  # noqa: BLE001 (whatever it is, a migration must not fail by it)
                _log.exception("telling of migration %s", record.id)

    def _write(self, record: Record[Any], names: list[Name]) -> None:
        """Write a record over its own row. One that a later attempt has replaced must not change that one's row."""
        values = (record.state.value, to_text(record.data), record.updated)
        with self._transaction():
            written = self._db.execute(
                "UPDATE migration SET state = ?, data = ?, updated = ? WHERE id = ? AND role = ? AND row = ?",
                (*values, record.id, record.role.value, record.row),
            )
            if written.rowcount:
                self._write_names(names)
        if not written.rowcount:
            raise StaleRecordError(
                f"this attempt of migration {record.id} is over at its {record.role.value}: another one has begun"
            )

    def _write_names(self, names: list[Name]) -> None:
        for one in names:
            if one.is_nowhere:
                key = (one.gid, one.process, one.container)
                self._db.execute("DELETE FROM name WHERE gid = ? AND process = ? AND container = ?", key)
            else:
                row = (one.gid, one.process, one.container, one.agent, one.address, json.dumps(one.qpns))
                self._db.execute("INSERT OR REPLACE INTO name VALUES (?, ?, ?, ?, ?, ?)", row)

    def _is_current(self, record: Record[Any]) -> bool:
        return self._records.get((record.id, record.role)) is record

    @staticmethod
    def _no_way(record: Record[Any], state: State) -> RefusedError:
        return RefusedError(
            f"migration {record.id} is {record.state.value} at its {record.role.value}: "
            f"it cannot become {state.value}"
        )

    def _insert(self, record: Record[Any]) -> None:
        row = (
            record.id,
            record.role.value,
            record.state.value,
            to_text(record.data),
            record.created,
            record.updated,
            record.row,
        )
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO migration VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _struck(self, record: Record[Any], state: State | None) -> Iterator[None]:
        """Write between the fault points of the state that is written; none: only something is noted."""
        name = f"store.{record.role.value}.{state.value}" if state else f"note.{record.role.value}"
        with self._translated("write"), fault_points.around(fault_points.Action(name)):
            yield

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot {verb} the agent's state {self._path}: {error}; "
                "make room there, or set state_dir in agent.toml"
            ) from error


def _timeline(record: Record[Any]) -> list[Step]:
    return list(getattr(record.data, "timeline", ()))


def _record(found: tuple[str, str, str, str, float, float, str]) -> Record[Any]:
    identity, role, state, data, created, updated, row = found
    try:
        members = from_json(Role(role), json.loads(data))
        return Record(identity, State(_RENAMED.get(state, state)), members, created, updated, row)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"the agent's record of migration {identity} ({role}) cannot be read: {error}"
        ) from error
