"""A container moves from mover to mover, or stays: whatever fails in between, it runs at exactly one place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from guest_process import PATIENT_S
from moving import Made, Moving

from migrrdma_runtime.base.errors import (
    AgentError,
    EngineError,
    MigrRDMAError,
    RefusedError,
    UnreachableError,
)
from migrrdma_runtime.engine.description import Description, Obstacle
from migrrdma_runtime.engine.engine import Container

Scenario = Callable[[Moving], Awaitable[None]]

_BEFORE_THE_STOP = [
    "looking",
    "sending the image",
    "making the container",
    "sending its files",
    "sending its memory, round 1",
    "starting its engine there",
    "sending its memory, round 2",
]
_FROM_THE_STOP_ON = ["draining and dumping", "sending the rest", "restoring there"]


def test_it_moves_with_its_connections_its_files_and_its_restart_policy(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        moving.dst.engine.images.clear()
        receipt = await moving.migrate()
        await moving.has_moved()
        assert (receipt["source"], receipt["destination"]) == ("src", "dst")
        assert [step["name"] for step in receipt["steps"]] == [
            *_BEFORE_THE_STOP,
            *_FROM_THE_STOP_ON,
            "removing it here",
        ]
        assert receipt["bytes"]["image"] == len(moving.dst.engine.loaded) == 7000
        assert list(receipt["blackouts"]) == ["peer"]

    with_movers(scenario)


def test_a_volume_that_is_not_there_goes_along_when_that_is_wanted(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        volume = moving.with_a_volume()
        with pytest.raises(RefusedError, match="there is no db"):
            await moving.migrate()
        await moving.has_stayed()

        def write() -> None:
            (volume / "late").write_text("the last row\n")

        moving.at["draining and dumping"] = write
        receipt = await moving.migrate(with_volumes=True)
        await moving.has_moved()
        there = moving.dst.engine.volumes["db"]
        assert (there / "table").read_text() == "rows\n"
        assert (there / "late").read_text() == "the last row\n"
        assert (volume / "table").exists(), "it is removed by nobody but its user"
        assert "files in /mnt/db" in receipt["bytes"]

    with_movers(scenario)


def test_a_volume_that_is_there_is_used_as_it_is(with_movers: Callable[[Scenario], None]) -> None:
    async def scenario(moving: Moving) -> None:
        moving.with_a_volume()
        there = moving.dst.home / "there-already"
        there.mkdir()
        (there / "table").write_text("shared rows\n")
        moving.dst.engine.volumes["db"] = there
        await moving.migrate(with_volumes=True)
        await moving.has_moved()
        assert (there / "table").read_text() == "shared rows\n"

    with_movers(scenario)


@pytest.mark.parametrize("step", ["sending its files", "sending the rest"])
def test_what_was_made_for_a_move_that_comes_to_nothing_is_removed(
    with_movers: Callable[[Scenario], None], step: str
) -> None:
    async def scenario(moving: Moving) -> None:
        volume = moving.with_a_volume()
        moving.at[step] = moving.cancel
        with pytest.raises(RefusedError, match="was cancelled"):
            await moving.migrate(with_volumes=True)
        await moving.has_stayed()
        assert not moving.dst.engine.volumes
        assert (volume / "table").exists()

    with_movers(scenario)


def test_a_volume_that_another_container_writes_to_does_not_go(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        moving.with_a_volume()
        moving.src.engine.made["c9"] = Made("c9", moving.src.home, running=True, name="other")
        with pytest.raises(RefusedError, match="container other writes to db, too"):
            await moving.migrate(with_volumes=True)

    with_movers(scenario)


def test_memory_goes_ahead_to_where_the_restore_looks_for_it(with_movers: Callable[[Scenario], None]) -> None:
    async def scenario(moving: Moving) -> None:
        receipt = await moving.migrate()
        await moving.has_moved()
        rounds = {name: size for name, size in moving.dst.found.items() if name.startswith("rounds/")}
        assert rounds == {"rounds/1/pages-1.img": 8192, "rounds/2/pages-1.img": 8192}
        assert [one["round"] for one in moving.events if "round" in one] == [1, 2]
        assert set(receipt["bytes"]) >= {"memory, round 1", "memory, round 2", "memory, the rest"}
        assert receipt["expected_downtime"] > 0
        assert 0 < receipt["least_downtime"] < sum(step["seconds"] for step in receipt["steps"])
        assert moving.src.daemon is not None
        assert moving.src.daemon._departures._carriage._least("dst") == receipt["least_downtime"]

    with_movers(scenario)


def test_memory_that_cannot_go_ahead_is_sent_in_one_piece_which_is_said(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        moving.src.no_rounds = "its kernel is not asked"
        receipt = await moving.migrate()
        await moving.has_moved()
        assert "memory" in receipt["bytes"]
        assert not [one for one in receipt["bytes"] if "round" in one]
        assert [one["note"] for one in moving.events if "note" in one] == [
            "its memory is sent in one piece: its kernel is not asked"
        ]

    with_movers(scenario)


def test_what_hinders_it_is_told_and_nothing_is_made(with_movers: Callable[[Scenario], None]) -> None:
    async def scenario(moving: Moving) -> None:
        moving.dst.engine.obstructed = [Obstacle("there is no network data", "make it")]
        told = (await moving.migrate(dry_run=True))["obstacles"]
        assert {"what": "dst: there is no network data", "remedy": "make it"} in told
        with pytest.raises(RefusedError, match=r"dst: there is no network data \(make it\)"):
            await moving.migrate()
        await moving.has_stayed()

    with_movers(scenario)


@pytest.mark.parametrize(
    "what", ["create", "start", "dump_round", "dump", "restore", "load_image", "save_image"]
)
def test_what_fails_is_undone_and_told(with_movers: Callable[[Scenario], None], what: str) -> None:
    async def scenario(moving: Moving) -> None:
        moving.dst.engine.images.clear()
        for one in (moving.src, moving.dst):
            one.engine.refuses.add(what)
        with pytest.raises(MigrRDMAError, match=f"{what} is refused.*web goes on here"):
            await moving.migrate()
        await moving.has_stayed()
        for one in (moving.src, moving.dst):
            one.engine.refuses.clear()
        await moving.migrate()
        await moving.has_moved()

    with_movers(scenario)


@pytest.mark.parametrize("step", [*_BEFORE_THE_STOP, *_FROM_THE_STOP_ON])
def test_it_can_be_cancelled_in_every_step(with_movers: Callable[[Scenario], None], step: str) -> None:
    async def scenario(moving: Moving) -> None:
        moving.dst.engine.images.clear()
        moving.at[step] = moving.cancel
        with pytest.raises(RefusedError, match="was cancelled: web goes on here"):
            await moving.migrate()
        await moving.has_stayed()
        await moving.migrate()
        await moving.has_moved()

    with_movers(scenario)


@pytest.mark.parametrize("step", [*_BEFORE_THE_STOP, *_FROM_THE_STOP_ON])
def test_a_mover_that_is_started_anew_has_undone_what_it_had_begun(
    with_movers: Callable[[Scenario], None], step: str
) -> None:
    async def scenario(moving: Moving) -> None:
        moving.dst.engine.images.clear()
        reached = asyncio.Event()
        moving.at[step] = reached.set
        task = asyncio.ensure_future(moving.migrate())
        await reached.wait()
        task.cancel()
        await asyncio.wait((task,))
        await moving.src.restart()
        assert moving.src.daemon is not None
        book = moving.src.daemon._departing
        while book.under_way():
            await asyncio.sleep(0.02)  # it says so to nobody
        await moving.has_stayed()
        await moving.migrate()
        await moving.has_moved()

    with_movers(scenario)


@pytest.mark.parametrize("step", [*_BEFORE_THE_STOP[2:], *_FROM_THE_STOP_ON])
def test_a_destination_whose_mover_is_started_anew_has_removed_what_it_had_made(
    with_movers: Callable[[Scenario], None], step: str
) -> None:
    async def scenario(moving: Moving) -> None:
        restarted: list[asyncio.Task[None]] = []
        moving.at[step] = lambda: restarted.append(asyncio.ensure_future(moving.dst.restart()))
        try:
            await moving.migrate()
        except MigrRDMAError:
            await asyncio.gather(*restarted)
            assert moving.dst.daemon is not None
            while moving.dst.daemon._arriving.under_way():
                await asyncio.sleep(0.02)  # it says so to nobody
            await moving.has_stayed()
        else:
            await asyncio.gather(*restarted)
            await moving.has_moved()

    with_movers(scenario)


def test_one_container_moves_once_at_a_time(with_movers: Callable[[Scenario], None]) -> None:
    async def scenario(moving: Moving) -> None:
        both = await asyncio.gather(moving.migrate(), moving.migrate(), return_exceptions=True)
        [refused] = [one for one in both if isinstance(one, BaseException)]
        assert "is being moved already" in str(refused)
        await moving.has_moved()

    with_movers(scenario)


def test_what_an_engine_made_for_a_mover_that_died_before_it_heard_of_it_is_removed(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        there = moving.dst.engine
        create, made = there.create, asyncio.Event()
        loop = asyncio.get_running_loop()

        def create_and_say_nothing(wanted: Description) -> Container:
            container = create(wanted)
            loop.call_soon_threadsafe(made.set)
            died.wait()
            return container

        died = threading.Event()
        there.create = create_and_say_nothing  # type: ignore[method-assign]
        task = asyncio.ensure_future(moving.migrate())
        await made.wait()
        await moving.dst.stop()  # which writes nothing down, as one that is killed
        died.set()
        there.create = create  # type: ignore[method-assign]
        assert there.made
        await moving.dst.start()
        with pytest.raises(MigrRDMAError, match="web goes on here"):
            await task
        await moving.has_stayed()

    with_movers(scenario)


def test_a_step_that_takes_longer_than_it_may_is_undone_and_named(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        waits = threading.Event()
        create = moving.dst.engine.create

        def create_late(wanted: Description) -> Container:
            waits.wait(PATIENT_S)
            return create(wanted)

        moving.dst.engine.create = create_late  # type: ignore[method-assign]
        moving.watched = lambda event: waits.set() if event.get("state") == "failed" else None
        told = r"making the container took longer than 0.5 s, which --timeout allows.*web goes on here"
        with pytest.raises(UnreachableError, match=told):
            await moving.migrate(timeout=0.5)
        await moving.has_stayed()
        moving.dst.engine.create = create  # type: ignore[method-assign]
        await moving.migrate(timeout=PATIENT_S)
        await moving.has_moved()

    with_movers(scenario)


async def _ask_at_destination(moving: Moving, said: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """``migrrdma migrate web dst --from src`` on the host that it goes to."""
    assert moving.dst.daemon is not None
    request = {"op": "migrate", "source": moving.move.src.address, "move": moving.options(**options)}
    return await moving.dst.daemon._migrate(request, said.append)


def test_it_is_moved_for_somebody_on_another_host_who_sees_it_all(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        said: list[dict[str, Any]] = []
        assert (await _ask_at_destination(moving, said, dry_run=True))["obstacles"] == []
        receipt = await _ask_at_destination(moving, said)
        await moving.has_moved()
        steps = [one["event"]["step"] for one in said if one["event"].get("state") == "done"]
        assert steps == [step["name"] for step in receipt["steps"]]

    with_movers(scenario)


def test_what_fails_is_told_to_whom_has_asked_for_it_elsewhere(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        moving.dst.engine.refuses.add("create")
        with pytest.raises(AgentError, match=r"create is refused.*web goes on here"):
            await _ask_at_destination(moving, [])
        await moving.has_stayed()
        with pytest.raises(AgentError, match="order of a move"):
            await _ask_at_destination(moving, [], container=7)

    with_movers(scenario)


def test_whom_has_asked_for_it_elsewhere_can_have_it_undone(with_movers: Callable[[Scenario], None]) -> None:
    async def scenario(moving: Moving) -> None:
        said: list[dict[str, Any]] = []
        stands = asyncio.Event()
        loop, go_on = asyncio.get_running_loop(), threading.Event()

        def stands_still(wanted: Description) -> Container:
            del wanted
            loop.call_soon_threadsafe(stands.set)
            go_on.wait(PATIENT_S)
            raise EngineError("it was let go")

        moving.dst.engine.create = stands_still  # type: ignore[method-assign]
        task = asyncio.ensure_future(_ask_at_destination(moving, said))
        await stands.wait()
        while not said:
            await asyncio.sleep(0.01)  # it is told of what happens by asking
        assert moving.dst.daemon is not None
        cancel = {"op": "cancel", "move": said[0]["event"]["move"]}
        loop.call_later(0.2, go_on.set)
        assert await moving.dst.daemon._cancel(cancel, said.append) == {"cancelled": True}
        with pytest.raises(RefusedError, match="was cancelled: web goes on here"):
            await task
        await moving.has_stayed()

    with_movers(scenario)


def test_what_its_engine_removes_cannot_be_kept(with_movers: Callable[[Scenario], None]) -> None:
    async def scenario(moving: Moving) -> None:
        moving.src.engine.made["c1"].auto_remove = True
        with pytest.raises(RefusedError, match=r"started with --rm.*without --keep-source"):
            await moving.migrate(keep_source=True)
        await moving.has_stayed()
        await moving.migrate()
        await moving.has_moved()

    with_movers(scenario)


def test_an_engine_that_is_away_is_waited_for_with_the_restart_policy(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        def strike() -> None:
            moving.src.engine.refuses.add("knows")
            moving.cancel()

        moving.at["sending the rest"] = strike
        task = asyncio.ensure_future(moving.migrate())
        while not any("restart policy is off" in one.get("waiting", "") for one in moving.events):
            await asyncio.sleep(0.02)  # it says so to nobody else
        assert not moving.src.is_frozen
        moving.src.engine.refuses.clear()
        with pytest.raises(RefusedError, match="was cancelled: web goes on here"):
            await task
        await moving.has_stayed()

    with_movers(scenario)
