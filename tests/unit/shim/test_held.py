"""A container whose checkpoint is somewhere is not created again, whether or not its agent runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from records import source_data

from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.shim import auto_remove, held

WAY = [State.DUMPING, State.PARKED, State.CLAIMED, State.COMMITTED, State.DONE]


@pytest.fixture(name="store")
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    config = tmp_path / "agent.toml"
    config.write_text(f'# state_dir = "/elsewhere"\nstate_dir = "{tmp_path}/state"\n')
    monkeypatch.setenv("MIGRRDMA_AGENT_CONFIG", str(config))
    held.require_not_held("c1")  # no agent was ever here
    return Store(tmp_path / "state" / "state.db")


@pytest.mark.parametrize(
    ("state", "way_out"),
    [
        (State.SUSPENDING, "try again when that has ended"),
        (State.DUMPING, "try again when that has ended"),
        (State.PARKED, "docker start --checkpoint"),
        (State.CLAIMED, "migrrdma migration abandon"),
        (State.COMMITTED, "migrrdma migration abandon --lost"),
    ],
)
def test_a_container_is_not_created_while_its_checkpoint_may_be_restored(
    store: Store, state: State, way_out: str
) -> None:
    record = store.begin("m", source_data("c1"))
    for one in WAY[: WAY.index(state) + 1] if state in WAY else []:
        store.move(record, one)
    with pytest.raises(
        AgentError, match=f"container c1 is not created: .*migration m, {state.value}.*{way_out}"
    ):
        held.require_not_held("c1")
    held.require_not_held("c10")
    store.close()
    with pytest.raises(AgentError):  # nor when the agent is down
        held.require_not_held("c1")


def test_a_container_that_another_host_has_adopted_is_not_created_until_a_person_says_so(
    store: Store,
) -> None:
    record = store.begin("m", source_data("c1"))
    for one in (State.DUMPING, State.PARKED, State.SUPERSEDED):
        store.move(record, one)
    with pytest.raises(AgentError, match=r"migration m, superseded\) was adopted by another host .* abandon"):
        held.require_not_held("c1")
    store.move(record, State.ABANDONED)
    held.require_not_held("c1")
    store.close()


def test_a_container_whose_checkpoint_is_being_taken_back_is_not_created(store: Store) -> None:
    """The other host may have restored it, as long as not every partner has agreed."""
    record = store.begin("m", source_data("c1"))
    for one in (State.DUMPING, State.PARKED, State.SUPERSEDED, State.ADOPTING):
        store.move(record, one)
    with pytest.raises(AgentError, match=r"migration m, adopting\) is being taken back .* adopt` again"):
        held.require_not_held("c1")
    store.close()


@pytest.mark.parametrize("end", [State.UNDONE, State.DONE, State.ABANDONED])
def test_a_container_is_created_when_its_migration_has_ended(store: Store, end: State) -> None:
    record = store.begin("m", replace(source_data("c1"), left_running=False))
    ways = {State.UNDONE: [], State.DONE: WAY[:-1], State.ABANDONED: WAY[:2]}
    for one in [*ways[end], end]:
        store.move(record, one)
    held.require_not_held("c1")
    store.close()


def test_a_database_that_cannot_be_read_is_named(store: Store, tmp_path: Path) -> None:
    store.close()
    (tmp_path / "state" / "state.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(
        AgentError, match=r"whether it has been moved elsewhere cannot be read from .*state.db"
    ):
        held.require_not_held("c1")


@pytest.mark.parametrize(
    ("removed", "made", "taken"),
    [(True, "empty", True), (True, "full", False), (True, "", False), (False, "empty", False)],
)
def test_a_checkpoint_that_docker_would_remove_with_its_container_is_noticed(
    tmp_path: Path, removed: bool, made: str, taken: bool
) -> None:
    folder = tmp_path / "containers" / "c1"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hostconfig.json").write_text(json.dumps({"AutoRemove": removed}))
    if made:
        (folder / "checkpoints" / "new").mkdir()
    if made == "full":
        (folder / "checkpoints" / "new" / "inventory.img").touch()
    mounts = [
        {"source": "/elsewhere", "destination": "/data"},
        {"source": f"{folder}/hostname", "destination": "/etc/hostname"},
    ]
    assert auto_remove.docker_folder(mounts, "c1") == str(folder)
    assert auto_remove.docker_folder(mounts, "c2") == ""
    assert auto_remove.takes_checkpoint_along(str(folder)) is taken
