"""Records outlive the agent, and move only as the protocol has it."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import calls
import pytest
from records import destination_data, partner_data, source_data

from migrrdma_runtime.agent.local.containers import ProcessId
from migrrdma_runtime.agent.roles.records import (
    DestinationData,
    PartnerGuest,
    PartnerQP,
    SourceData,
    SwitchedPartner,
    to_json,
    to_text,
)
from migrrdma_runtime.agent.roles.states import FIRST, TRANSITIONS, Role, State
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.base.errors import RefusedError, StaleRecordError, StoreError
from migrrdma_runtime.wire.agent_messages import Contact, Step


def test_records_survive_and_keep_their_state(tmp_path: Path) -> None:
    step: Step = {"name": "drain", "host": "src", "start": 1.5, "seconds": 0.5}
    holder = Contact("dst", "192.0.2.2:50505")
    store = Store(tmp_path / "state.db")
    source = store.begin("m", replace(source_data("c"), partners=[holder], processes=[ProcessId(7, "99")]))
    store.move(source, State.DUMPING, timeline=[step])
    store.note(source, holder=holder)
    destination = store.begin("m", replace(destination_data(), partners=[SwitchedPartner("p", "h:1", "00")]))
    store.begin("m", replace(partner_data(), guests=[PartnerGuest("c", "p", "x", [PartnerQP(1, 2, "g", 3)])]))
    before = {record.role: (record.state, record.data) for record in store.every()}
    store.close()
    again = Store(tmp_path / "state.db")
    assert {record.role: (record.state, record.data) for record in again.every()} == before
    found = again.find("m", SourceData)
    assert found is not None
    assert (found.state, found.data.timeline, found.data.holder) == (State.DUMPING, [step], holder)
    assert before[Role.DESTINATION] == (State.RESTORING, destination.data)
    again.close()


def test_a_record_of_many_queue_pairs_is_written_at_the_cost_of_its_json() -> None:
    """A partner's is written seven times in a move. With to_json() alone it is six times as much."""
    gid = "0000:0000:0000:0000:0000:ffff:c000:0204"
    pairs = [PartnerQP(1, number, gid, number) for number in range(1024)]
    made = [{"gid": gid, "qpn": number, "new_gid": gid, "new_qpn": number} for number in range(1024)]
    guest = PartnerGuest("c", "p", "x", pairs, ProcessId(7, "99"))
    data = replace(partner_data(), guests=[guest], prepared=made)
    with calls.counted() as counted:
        text = to_text(data)
    assert json.loads(text) == to_json(data)
    assert counted.made < 1024 + 100, "one call for each queue pair, for its members"


def test_the_records_of_an_older_agent_are_understood(tmp_path: Path) -> None:
    old = {
        "container": "c", "left_running": False, "key_digest": "00", "epoch": 0, "guests": ["g"],
        "processes": [[7, "99"]], "partners": [{"name": "peer", "address": "h:1"}], "runtime": [8, "98"],
        "timeline": [], "pending": ["g"], "never heard of": 1,
    }  # fmt: skip
    path = tmp_path / "state.db"
    store = Store(path)
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
        db.execute("ALTER TABLE migration DROP COLUMN row")
        now = time.time()
        db.execute(
            "INSERT INTO migration VALUES ('m', 'source', 'aborted', ?, ?, ?)", (json.dumps(old), now, now)
        )
    db.close()
    store = Store(path)
    [record] = store.all(SourceData)
    assert record.state is State.UNDONE
    assert record.data.processes == [ProcessId(7, "99")]
    assert record.data.partners == [Contact("peer", "h:1")]
    assert record.data.runtime == ProcessId(8, "98")
    store.close()


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO migration VALUES ('m', 'source', 'parked', '{}', 0, 0, '')")
    db.close()
    with pytest.raises(StoreError, match=r"record of migration m .* cannot be read: .* 'container'"):
        Store(path)


def test_a_record_moves_only_as_the_protocol_has_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    record = store.begin("m", source_data())
    with pytest.raises(RefusedError, match="is suspending at its source: it cannot become committed"):
        store.move(record, State.COMMITTED)
    assert record.state is State.SUSPENDING
    store.close()


def test_a_migration_begins_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    record = store.begin("m", destination_data())
    with pytest.raises(RefusedError, match="under way here already, restoring"):
        store.begin("m", destination_data())
    store.move(record, State.RELEASED)
    assert store.begin("m", destination_data()).state is State.RESTORING
    store.close()


def test_a_record_that_a_later_attempt_has_replaced_writes_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    first = store.begin("m", destination_data())
    store.move(first, State.RELEASED)
    second = store.begin("m", destination_data())
    store.move(second, State.COMMITTING)
    store.move(second, State.COMMITTED)
    for write in (store.note, store.remember):
        with pytest.raises(StaleRecordError, match="another one has begun"):
            write(first, told=True)
    store.close()
    again = Store(tmp_path / "state.db")
    [kept] = again.all(DestinationData)
    assert kept.state is State.COMMITTED
    again.close()


def test_what_was_decided_elsewhere_is_known_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Store) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    store = Store(tmp_path / "state.db")
    record = store.begin("m", destination_data())
    store.move(record, State.COMMITTING)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_transaction", full)
        with pytest.raises(StoreError, match="disk is full"):
            store.move(record, State.COMMITTED)
        assert record.state is State.COMMITTING
        store.accept(record, State.COMMITTED, pending=["g"])
        assert (record.state, record.data.pending) == (State.COMMITTED, ["g"])
    store.remember(record, downtime=1.0)  # there is room again
    store.close()
    again = Store(tmp_path / "state.db")
    [kept] = again.all(DestinationData)
    assert (kept.state, kept.data.pending, kept.data.downtime) == (State.COMMITTED, ["g"], 1.0)
    again.close()


def test_a_record_is_forgotten_once_nobody_has_to_be_told_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    for name in ("told", "not told", "pending"):
        record = store.begin(name, replace(destination_data(), epoch=1))
        pending = ["g"] if name == "pending" else []
        store.move(record, State.RELEASED, told=name != "not told", pending=pending)
    store.close()
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute("UPDATE migration SET updated = 0")
    db.close()
    again = Store(tmp_path / "state.db")
    assert sorted(record.id for record in again.every()) == ["not told", "pending"]
    again.close()


def test_an_agent_that_runs_on_forgets_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "state.db")
    record = store.begin("old", replace(destination_data(), epoch=1))
    store.move(record, State.RELEASED, told=True)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 86400)
    store.begin("new", destination_data())
    assert [one.id for one in store.every()] == ["new"]
    store.close()


def test_every_state_can_be_reached() -> None:
    for role, transitions in TRANSITIONS.items():
        reached, new = set(), {FIRST[role]}
        while new:
            reached |= new
            new = {after for one in new for after in transitions[one]} - reached
        assert reached == transitions.keys()


def test_the_records_of_a_newer_agent_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="was written by a newer agent"):
        Store(path)


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match=r"cannot (open|read) the agent's state .*state\.db"):
        Store(path)
