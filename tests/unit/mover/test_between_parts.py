"""What falls between a move's parts: nothing is lost, and nothing goes that is not the move's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from guest_process import PATIENT_S
from moving import ALWAYS, Made, Moving

from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.base.errors import AgentError, MigrRDMAError, RefusedError, UnreachableError
from migrrdma_runtime.engine import obstacles
from migrrdma_runtime.engine.description import Description, Obstacle
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.mounts import Mount
from migrrdma_runtime.mover import arrival, mapped, streams
from migrrdma_runtime.mover import layer as layers
from migrrdma_runtime.mover.book import Arriving
from migrrdma_runtime.mover.layer import Layer, keep_only, told

Scenario = Callable[[Moving], Awaitable[None]]
_ANONYMOUS = "ab" * 32


# --- the end of a move -------------------------------------------------------------------------------------


def test_a_cancel_that_comes_too_late_has_it_moved_with_a_receipt(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        restore, loop = moving.dst.restore, asyncio.get_running_loop()

        def restore_and_cancel() -> None:
            restore()
            loop.call_soon_threadsafe(moving.cancel)
            time.sleep(0.5)  # an engine that takes its time, in which the cancel comes

        moving.dst.restore = restore_and_cancel  # type: ignore[method-assign]
        receipt = await moving.migrate()
        await moving.has_moved()
        assert receipt["container"] == "web"
        assert moving.src.daemon is not None
        assert not moving.src.daemon._departing.under_way()

    with_movers(scenario)


def test_a_cancel_while_a_move_is_undone_does_not_stop_that(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        moving.src.engine.refuses.add("dump")
        moving.watched = lambda event: moving.cancel() if "undone" in event else None
        with pytest.raises(MigrRDMAError, match="web goes on here"):
            await moving.migrate()
        await moving.has_stayed()

    with_movers(scenario)


def test_a_cancel_while_it_is_in_doubt_leaves_no_frozen_container_here(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        restore, committed = moving.dst.restore, asyncio.Event()
        loop = asyncio.get_running_loop()

        def restore_slowly() -> None:
            restore()
            loop.call_soon_threadsafe(committed.set)
            time.sleep(1)  # an engine that takes its time to say so, in which nobody knows

        async def hears_nothing(_journey: object) -> None:
            await committed.wait()
            raise UnreachableError("dst does not answer")

        moving.dst.restore = restore_slowly  # type: ignore[method-assign]
        assert moving.src.daemon is not None
        moving.src.daemon._departures._carriage._restored = hears_nothing  # type: ignore[method-assign,assignment]
        moving.watched = lambda event: moving.cancel() if "waiting" in event else None
        try:
            await moving.migrate()
        except (MigrRDMAError, asyncio.CancelledError) as error:
            said: BaseException | None = error
        else:
            said = None
        for _ in range(50):
            if not moving.src.daemon._departing.under_way():
                break
            await asyncio.sleep(0.1)
        assert not moving.src.daemon._departing.under_way(), "it stands still here, and nobody ends it"
        assert not isinstance(said, asyncio.CancelledError), "whoever asked for it hears nothing"
        await moving.has_moved()

    with_movers(scenario)


def test_a_cancel_while_the_restart_policy_is_turned_off_has_it_as_it_was(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        set_restart, loop = moving.src.engine.set_restart, asyncio.get_running_loop()
        turned_off = threading.Event()

        def slowly(container: Container, policy: dict[str, Any]) -> None:
            if policy["Name"] == "no":
                loop.call_soon_threadsafe(moving.cancel)
                time.sleep(
                    1
                )  # an engine that takes its time, in which the policy could be set again too early
            set_restart(container, policy)
            if policy["Name"] == "no":
                turned_off.set()

        moving.src.engine.set_restart = slowly  # type: ignore[method-assign]
        with pytest.raises(RefusedError, match="was cancelled"):
            await moving.migrate()
        assert await asyncio.to_thread(turned_off.wait, PATIENT_S)
        await moving.has_stayed()

    with_movers(scenario)


# --- volumes -----------------------------------------------------------------------------------------------


def test_what_docker_copies_from_the_image_into_a_new_volume_is_not_there(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        moving.with_a_volume()
        time.sleep(0.2)  # nothing is so young any more that it is sent twice
        create = moving.dst.engine.create

        def create_as_docker_does(wanted: Description) -> Container:
            container = create(wanted)
            (moving.dst.engine.volumes["db"] / "removed-by-the-application").write_text("of the image\n")
            return container

        moving.dst.engine.create = create_as_docker_does  # type: ignore[method-assign]
        await moving.migrate(with_volumes=True)
        await moving.has_moved()
        assert [one.name for one in moving.dst.engine.volumes["db"].iterdir()] == ["table"]

    with_movers(scenario)


def _write(volume: Path) -> None:
    (volume / "dump.rdb").write_text("x")


@pytest.mark.parametrize("with_volumes", [True, False])
def test_a_volume_without_a_name_that_is_written_to_during_the_move_is_not_lost(
    with_movers: Callable[[Scenario], None], with_volumes: bool
) -> None:
    async def scenario(moving: Moving) -> None:
        volume, there = moving.src.home / _ANONYMOUS, moving.dst.home / ("cd" * 32)
        for one in (volume, there):
            one.mkdir()

        def mounts(source: Path) -> list[Mount]:
            return [Mount("/data", source, source.name, writable=True)]

        moving.src.engine.mounts = lambda _: mounts(volume)  # type: ignore[method-assign,assignment]
        moving.dst.engine.mounts = lambda _: mounts(there)  # type: ignore[method-assign,assignment]
        moving.src.engine.left_behind = lambda _: obstacles.left_behind(  # type: ignore[method-assign,assignment]
            [{"Type": "volume", "Name": volume.name, "Source": str(volume), "Destination": "/data"}]
        )
        moving.at["sending its memory, round 1"] = lambda: _write(volume)
        try:
            await moving.migrate(with_volumes=with_volumes)
        except MigrRDMAError:
            await moving.has_stayed()
        else:
            await moving.has_moved()
            assert (there / "dump.rdb").exists()

    with_movers(scenario)


def test_a_volume_outlives_the_container_that_its_user_removes_after_the_move(
    with_movers: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(moving: Moving) -> None:
        moving.with_a_volume()
        assert moving.src.daemon is not None
        there = moving.src.daemon._there
        ask = there.ask

        async def never_finish(journey: Any, name: str, *rest: Any, **more: Any) -> Any:
            if name == "finish":
                raise AgentError("the network is cut")
            return await ask(journey, name, *rest, **more)

        there.ask = never_finish  # type: ignore[method-assign]
        await moving.migrate(with_volumes=True)
        moving.dst.engine.made.clear()  # docker rm --force, without --volumes
        monkeypatch.setattr(arrival, "SILENCE_S", 0.0)
        assert moving.dst.daemon is not None
        while moving.dst.daemon._arriving.under_way():
            await asyncio.sleep(0.1)
        assert "db" in moving.dst.engine.volumes

    with_movers(scenario)


def test_a_volume_that_its_user_made_while_the_mover_was_away_is_not_removed(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        assert moving.dst.daemon is not None
        # It was killed between its note and the first thing that it made.
        note = Arriving("m" + "0" * 31, "src", "docker", "web", {}, made=["db"])
        moving.dst.daemon._arriving.write(note)
        await moving.dst.stop()
        mine = moving.dst.home / "mine"
        mine.mkdir()
        moving.dst.engine.volumes["db"] = mine
        await moving.dst.start()
        while moving.dst.daemon._arriving.under_way():
            await asyncio.sleep(0.1)
        assert mine.exists()

    with_movers(scenario)


def test_a_container_that_writes_below_what_goes_along_hinders_it(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        volume = moving.with_a_volume()
        (volume / "below").mkdir()
        moving.src.engine.made["c9"] = Made("c9", moving.src.home, running=True, name="other")
        mounts = moving.src.engine.mounts

        def of(container: Container) -> list[Mount]:
            if container.id == "c9":
                return [Mount("/x", volume / "below", "", writable=True)]
            return mounts(container)

        moving.src.engine.mounts = of  # type: ignore[method-assign,assignment]
        with pytest.raises(RefusedError, match="other writes to"):
            await moving.migrate(with_volumes=True)

    with_movers(scenario)


def test_a_volume_mounted_twice_is_known_by_both_places(with_movers: Callable[[Scenario], None]) -> None:
    """What is mapped, by either, is sent once more."""

    async def scenario(moving: Moving) -> None:
        volume = moving.with_a_volume()
        there = moving.dst.engine

        def twice(of: Any) -> Callable[[Container], list[Mount]]:
            return lambda _: [
                Mount(target, path, name, writable=True)
                for name, path in of.volumes.items()
                for target in ("/a", "/b")
            ]

        moving.src.engine.mounts = twice(moving.src.engine)  # type: ignore[method-assign,assignment]
        there.mounts = twice(there)  # type: ignore[method-assign,assignment]

        def write() -> None:
            file = os.open(volume / "table", os.O_WRONLY)
            os.pwrite(file, b"ROWS\n", 0)
            os.close(file)
            # As a store into a shared mapping does: the times say nothing of it.
            for layer in looked_at:
                if layer.root == volume:
                    layer._first = dict(_now(layer))

        looked_at: list[Layer] = []
        look = Layer.look

        def looked(layer: Layer) -> None:
            looked_at.append(layer)
            look(layer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Layer, "look", looked)
            patch.setattr(mapped, "written_to", lambda _: {"a/table"})
            moving.at["draining and dumping"] = write
            await moving.migrate(with_volumes=True)
        await moving.has_moved()
        assert (there.volumes["db"] / "table").read_text() == "ROWS\n"

    with_movers(scenario)


def _now(layer: Layer) -> Any:
    return layers._entries(layer.root)


# --- folders -----------------------------------------------------------------------------------------------


def _folders(moving: Moving) -> None:
    """Have the fake engine know folders of this host as a real one does."""
    engine = moving.dst.engine

    def lacks(wanted: Description) -> list[Obstacle]:
        wanted_here = wanted.create.get("Folders", [])
        return [Obstacle(f"no {one}", "", one) for one in wanted_here if not os.path.lexists(one)]

    engine.obstacles = lacks  # type: ignore[method-assign]


async def _receive(moving: Moving, number: int, folders: list[str]) -> Any:
    assert moving.dst.daemon is not None
    description = Description(
        "docker", f"web{number}", "nginx", f"sha256:{'1' * 64}", {"Folders": folders}, ALWAYS
    )
    return await moving.dst.daemon._arrivals.receive(
        Identity("src", frozenset()),
        {"move": f"m{number}", "description": description.as_message(), "mounts": folders},
    )


def test_of_two_moves_that_bring_a_folder_one_does_not_remove_the_others(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        _folders(moving)
        folder = moving.dst.home / "shared"
        both = await asyncio.gather(
            *(_receive(moving, number, [str(folder)]) for number in (1, 2)), return_exceptions=True
        )
        assert [isinstance(one, MigrRDMAError) for one in both].count(True) == 1
        assert folder.is_dir()

    with_movers(scenario)


def test_a_path_that_leads_elsewhere_removes_nothing(with_movers: Callable[[Scenario], None]) -> None:
    async def scenario(moving: Moving) -> None:
        _folders(moving)
        mine = moving.dst.home / "mine"
        mine.mkdir()
        (mine / "file").write_text("x")
        with pytest.raises(MigrRDMAError):
            await _receive(moving, 1, [f"{moving.dst.home}/none/../mine"])
        assert (mine / "file").exists()

    with_movers(scenario)


def test_no_folder_above_what_was_made_is_left_for_the_next_move_to_find_empty(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        _folders(moving)
        await _receive(moving, 1, [f"{moving.dst.home}/srv/app/data"])
        assert moving.dst.daemon is not None
        await moving.dst.daemon._arrivals.drop(Identity("src", frozenset()), {"move": "m1", "reason": "x"})
        assert not (moving.dst.home / "srv").exists()

    with_movers(scenario)


def test_a_folder_that_another_container_has_come_to_use_is_not_removed(
    with_movers: Callable[[Scenario], None],
) -> None:
    async def scenario(moving: Moving) -> None:
        _folders(moving)
        folder, engine = moving.dst.home / "shared", moving.dst.engine
        await _receive(moving, 1, [str(folder)])
        # It was moved here meanwhile, found the folder here, and uses it as it is.
        engine.made["c9"] = Made("c9", moving.dst.home, running=True, name="other")
        engine.mounts = lambda _: [Mount("/x", folder, "", writable=True)]  # type: ignore[method-assign,assignment]
        assert moving.dst.daemon is not None
        await moving.dst.daemon._arrivals.drop(Identity("src", frozenset()), {"move": "m1", "reason": "x"})
        assert folder.is_dir()

    with_movers(scenario)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts, as which CI runs it")
def test_what_is_mounted_below_a_folder_that_was_made_is_not_emptied(
    with_movers: Callable[[Scenario], None],
) -> None:
    """A container that mounts a folder with rshared has the host mount there what it mounts below it."""

    async def scenario(moving: Moving) -> None:
        _folders(moving)
        folder, mine = moving.dst.home / "data", moving.dst.home / "mine"
        mine.mkdir()
        (mine / "file").write_text("x")
        await _receive(moving, 1, [str(folder)])
        (folder / "below").mkdir()
        subprocess.run(["mount", "--bind", mine, folder / "below"], check=True)
        try:
            assert moving.dst.daemon is not None
            await moving.dst.daemon._arrivals.drop(
                Identity("src", frozenset()), {"move": "m1", "reason": "x"}
            )
        finally:
            subprocess.run(["umount", "--lazy", folder / "below"], check=False)
        assert (mine / "file").exists()

    with_movers(scenario)


# --- layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instead", ["nothing", "another folder", "a link out of it"])
def test_a_folder_that_is_away_while_it_is_copied_arrives(tmp_path: Path, instead: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "a/deep").mkdir(parents=True)
    there.mkdir()
    (here / "a/deep/file").write_text("x")
    time.sleep(0.2)  # nothing is so young any more that it is sent twice
    layer = Layer(here)
    layer.look()
    (here / "a").rename(here / "b")
    if instead == "another folder":
        (here / "a/deep").mkdir(parents=True)
        (here / "a/deep/file").write_text("y")
    elif instead == "a link out of it":
        (tmp_path / "outside/deep").mkdir(parents=True)
        (here / "a").symlink_to(tmp_path / "outside")

    async def carry() -> None:
        await streams.write_layer(there, streams.read_layer(here))
        if (here / "a").is_symlink():
            (here / "a").unlink()
        elif (here / "a").exists():
            (here / "a").rename(here / "c")
        (here / "b").rename(here / "a")
        changes = layer.changes()
        await keep_only(there, told(changes.stays))
        await streams.write_layer(there, streams.read_files(here, changes.changed))

    asyncio.run(carry())
    assert not (there / "a").is_symlink()
    assert (there / "a/deep/file").read_text() == "x"


def test_times_of_whole_seconds_are_young_for_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ext3 has them, ext4 with inodes of 128 bytes, and some servers of NFS."""
    entry = layers._entry

    def coarse(status: os.stat_result) -> Any:
        one = entry(status)
        second = 10**9
        return replace(one, changed=one.changed // second * second, modified=one.modified // second * second)

    monkeypatch.setattr(layers, "_entry", coarse)
    time.sleep(1 - time.time() % 1)  # both changes are of one second
    file = tmp_path / "file"
    file.write_text("one")
    time.sleep(0.3)  # older than what counts as young where times are fine
    layer = Layer(tmp_path)
    layer.look()
    file.write_text("two")
    assert "file" in layer.changes().changed


def test_what_is_mapped_is_looked_for_before_each_look(with_movers: Callable[[Scenario], None]) -> None:
    """A mapping that is made while the files before are sent, and let go before the end, has left no trace."""

    async def scenario(moving: Moving) -> None:
        volume = moving.with_a_volume()
        there, times = moving.dst.engine, layers._entry
        is_mapped: set[str] = set()
        send = streams.read_layer

        def reading(root: Path) -> Any:
            if root != volume:  # the layer goes first
                is_mapped.add("mnt/db/table")
            return send(root)

        def store() -> None:
            is_mapped.clear()
            status = (volume / "table").stat()
            (volume / "table").write_text("ROWS\n")
            # The page was dirty before: no time has changed.
            as_it_was = (status.st_ctime_ns, status.st_mtime_ns)
            stored = (volume / "table").stat().st_ino

            def unchanged(status: os.stat_result) -> Any:
                one = times(status)
                if one.inode != stored:
                    return one
                return replace(one, changed=as_it_was[0], modified=as_it_was[1])

            patch.setattr(layers, "_entry", unchanged)

        time.sleep(0.2)  # nothing is so young any more that it is sent twice
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "read_layer", reading)
            patch.setattr(mapped, "written_to", lambda _: set(is_mapped))
            moving.at["draining and dumping"] = store
            await moving.migrate(with_volumes=True)
        await moving.has_moved()
        assert (there.volumes["db"] / "table").read_text() == "ROWS\n"

    with_movers(scenario)


def test_nothing_mapped_leads_out_of_a_layer(tmp_path: Path) -> None:
    """A memfd has any name that its maker likes: ``a/d/x`` is shown as ``/memfd:a/d/x (deleted)``."""
    outside, layer = tmp_path / "outside", tmp_path / "layer"
    outside.mkdir()
    (layer / "memfd:a").mkdir(parents=True)
    (outside / "x (deleted)").write_text("the host's")
    (layer / "memfd:a/d").symlink_to(outside)
    assert mapped.with_all_names(layer, {"memfd:a/d/x (deleted)"}) == []
    assert mapped.with_all_names(layer, {"memfd:a/../../outside/x (deleted)"}) == []
    assert mapped.with_all_names(layer, {"memfd:a\0"}) == []


@pytest.fixture
def _no_deep_folders_stay(tmp_path: Path) -> Iterator[None]:
    """Pytest's own clearing away fails at them, in every later run."""
    yield
    subprocess.run(["rm", "-rf", "--", tmp_path], check=True)


def _deep(folder: Path) -> None:
    """More folders in each other than Python calls functions, or a process may have open."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.mark.usefixtures("_no_deep_folders_stay")
def test_a_folder_of_any_depth_is_removed_with_what_was_made(with_movers: Callable[[Scenario], None]) -> None:
    """A container's user could else have what removes things here end."""

    async def scenario(moving: Moving) -> None:
        _folders(moving)
        folder = moving.dst.home / "data"
        await _receive(moving, 1, [str(folder)])
        _deep(folder)
        assert moving.dst.daemon is not None
        await moving.dst.daemon._arrivals.drop(Identity("src", frozenset()), {"move": "m1", "reason": "x"})
        assert not folder.exists()

    with_movers(scenario)


@pytest.mark.usefixtures("_no_deep_folders_stay")
def test_a_folder_of_any_depth_goes_when_it_has_gone_here(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    _deep(tmp_path / "gone")
    asyncio.run(keep_only(tmp_path, told({"": []})))
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("_no_deep_folders_stay")
def test_a_path_too_long_for_the_kernel_is_named_to_the_user(with_movers: Callable[[Scenario], None]) -> None:
    async def scenario(moving: Moving) -> None:
        deep = moving.src.engine.made["c1"].layer / "deep"
        deep.mkdir()
        here = os.open(deep, os.O_RDONLY)
        for _ in range(20):
            os.mkdir("a" * 250, dir_fd=here)
            below = os.open("a" * 250, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        try:
            await moving.migrate()
        except MigrRDMAError:
            await moving.has_stayed()

    with_movers(scenario)
