"""What has succeeded is never turned into a failure: Docker deletes the images of a checkpoint that "failed".

The real runtime and real agents, over a low-level runtime that ends the container as CRIU does.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, hexadecimal, keep_alive
from guest_process import PATIENT_S
from moves import Move
from runtime_on_host import RuntimeOnHost

from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.fault_points import Action, Moment
from migrrdma_runtime.wire import dump_outcome

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


class Chain:
    """A move of which source and destination have a runtime."""

    def __init__(self, move: Move, folder: Path) -> None:
        self.move = move
        move.lands_in = "c1"
        self.source, self.destination = (
            RuntimeOnHost(host, folder / f"runtime-{host.name}") for host in (move.src, move.dst)
        )
        self.dump = [
            f"echo image >{self.source.images}/inventory.img",
            f"kill -9 {move.mover.pid}",
        ]

    @classmethod
    async def begin(cls, cluster: Cluster) -> Chain:
        chain = cls(await Move.begin(cluster), cluster.directory)
        chain.move.image = (await chain.move.mover.show())["image"]
        return chain

    def carry_over(self) -> None:
        """Take the images to the destination."""
        shutil.copytree(self.source.images, self.destination.images)
        self.move.document = json.loads((self.source.images / "migrrdma.json").read_text())

    async def restore(self) -> Any:
        """Restore at the destination, by its runtime."""
        move, runtime = self.move, self.destination
        runtime.does("restore", runtime.meets("restored"))
        call = asyncio.ensure_future(runtime.restore())
        reached = asyncio.ensure_future(runtime.reached("restored"))
        await asyncio.wait((call, reached), return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if not call.done():
            move.restored = await move.cluster.guest(
                move.dst, "c1", move.mover.name, move.image, state=4, gid=hexadecimal(move.dst.gid)
            )
            move.where = move.dst
            runtime.go_on("restored")
        return await call


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it


def test_the_agent_is_gone_when_the_dump_has_succeeded(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        chain.source.does("checkpoint", *chain.dump, chain.source.meets("dumped"))
        call = asyncio.ensure_future(chain.source.checkpoint())
        await chain.source.reached("dumped")
        await chain.move.src.stop()
        chain.source.go_on("dumped")
        ended = await call
        assert ended.code == 0
        assert "was dumped, but the agent of this host" in ended.log
        assert (chain.source.images / "migrrdma.json").exists()
        # Nothing but the file tells the next agent: the runtime has ended and the processes' numbers may be others'.
        chain.move.src.containers.boot = "another"
        await chain.move.src.start()
        await until(lambda: chain.move.src.state() == {"source": "parked"})
        assert not list(chain.move.src.config.outcomes.iterdir())
        chain.carry_over()
        assert (await chain.restore()).code == 0
        await chain.move.both_go_on_after_the_move()

    play(scenario)


def _dumped_by_an_engine(chain: Chain) -> None:
    """Have the source's images where containerd has them."""
    chain.source.images = chain.source.images.with_name("ctrd-checkpoint123")
    chain.dump[0] = f"echo image >{chain.source.images}/inventory.img"
    chain.source.does("checkpoint", *chain.dump)


def _kept(chain: Chain) -> list[Path]:
    return [*chain.source.images.parent.glob("migrrdma-images-*"), *chain.move.src.config.kept.iterdir()]


def test_images_that_the_engine_deletes_are_kept_until_they_are_restored(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        _dumped_by_an_engine(chain)
        assert (await chain.source.checkpoint()).code == 0
        shutil.rmtree(chain.source.images)  # its disk is full, so it has "failed"
        [folder, pointer] = _kept(chain)
        assert pointer.readlink() == folder
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.rename(chain.source.images)  # what a person would copy
        chain.carry_over()
        chain.source.images.rename(folder)
        assert (await chain.restore()).code == 0
        await chain.move.both_go_on_after_the_move()
        await until(lambda: not _kept(chain))

    play(scenario)


def test_nothing_is_kept_of_a_dump_that_failed(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        _dumped_by_an_engine(chain)
        chain.source.does("checkpoint", "exit 1")
        assert (await chain.source.checkpoint()).code == 1
        await chain.move.both_go_on_as_before()
        await until(lambda: not _kept(chain))

    play(scenario)


def test_what_an_agent_that_was_killed_has_not_let_go_the_next_one_does(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        _dumped_by_an_engine(chain)
        assert (await chain.source.checkpoint()).code == 0
        [folder, pointer] = _kept(chain)
        await chain.move.src.stop()
        unknown = pointer.with_name("0123456789abcdef")
        unknown.symlink_to("/nonexistent/migrrdma-images-0123456789abcdef")
        astray = pointer.with_name("fedcba9876543210")
        astray.symlink_to(chain.move.cluster.directory)
        await chain.move.src.start()
        await until(lambda: _kept(chain) == [folder, pointer])
        assert chain.move.cluster.directory.exists()

    play(scenario)


def test_an_outcome_that_could_not_be_removed_is_removed_in_the_end(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    monkeypatch.setattr(fault_points, "FOLDER", str(faults))

    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        chain.source.does("checkpoint", *chain.dump)
        point = faults / fault_points.name_of(Action.FORGET_OUTCOME, Moment.BEFORE)
        point.write_text("error")
        point.chmod(0o600)
        assert (await chain.source.checkpoint()).code == 0
        assert not point.exists()
        [outcome] = chain.move.src.config.outcomes.iterdir()
        chain.carry_over()
        assert (await chain.restore()).code == 0
        await chain.move.both_go_on_after_the_move()
        await until(lambda: not outcome.exists())

    play(scenario)


def test_the_images_of_a_person_have_no_second_names(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        chain.source.does("checkpoint", *chain.dump)
        assert (await chain.source.checkpoint()).code == 0
        assert not _kept(chain)

    play(scenario)


def test_the_low_level_runtime_fails_after_the_container_has_been_dumped(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        chain.source.does("checkpoint", *chain.dump, "exit 1")
        ended = await chain.source.checkpoint()
        assert ended.code == 0
        assert "was dumped and has ended; what came after that failed" in ended.log
        assert chain.move.src.state() == {"source": "parked"}
        assert (chain.source.images / "migrrdma.json").exists()

    play(scenario)


@pytest.mark.parametrize("lines", [["exit 1"], ["echo image >$image/inventory.img; exit 1"]])
def test_a_dump_that_failed_is_a_failure(play: Play, lines: list[str]) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        chain.source.does("checkpoint", f"image={chain.source.images}", *lines)
        assert (await chain.source.checkpoint()).code == 1
        assert not (chain.source.images / "migrrdma.json").exists()
        await chain.move.both_go_on_as_before()
        assert chain.move.src.state() == {"source": "undone"}

    play(scenario)


def test_a_host_that_was_started_anew_during_the_dump_has_no_image(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        chain.source.does("checkpoint", *chain.dump, chain.source.meets("dumped"))
        call = asyncio.ensure_future(chain.source.checkpoint())
        await chain.source.reached("dumped")
        await chain.move.src.stop()
        chain.move.src.containers.boot = "another"
        await chain.move.src.start()
        await until(lambda: chain.move.src.state() == {"source": "undone"})
        await chain.move.partner.until_asked("UNDO")
        chain.source.go_on("dumped")
        await call

    play(scenario)


@pytest.mark.parametrize(("step", "survives"), [("connect", False), ("committed", True), ("switch", True)])
def test_what_was_restored_is_killed_when_its_claim_was_given_back_and_only_then(
    play: Play, step: str, survives: bool
) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        chain.source.does("checkpoint", *chain.dump)
        assert (await chain.source.checkpoint()).code == 0
        chain.carry_over()
        chain.move.dst.kill_at = f"destination: {step}"
        async with keep_alive(chain.move.dst):
            ended = await chain.restore()
        assert ended.code == (0 if survives else 1), ended.log
        assert ("delete" in chain.destination.calls) is not survives
        if survives:
            await chain.move.both_go_on_after_the_move()

    play(scenario)


def test_a_disk_that_is_full_after_the_commit_is_no_failure(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        full = [False]

        def begin(store: Store) -> Any:
            if full[0] and store is move.dst.agent.store:
                raise sqlite3.OperationalError("database or disk is full")
            return real(store)

        def fill(step: str) -> None:
            full[0] = full[0] or step == "destination: committed"

        real = Store._transaction
        monkeypatch.setattr(Store, "_transaction", begin)
        move.dst.on_fault_point = fill
        result = await move.restore()
        assert result["downtime"] > 0
        await move.both_go_on_after_the_move()
        await until(lambda: move.src.state() == {"source": "done"})

    play(scenario)


def test_a_disk_that_is_full_when_the_dump_has_succeeded_delays_the_restore(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        chain = await Chain.begin(cluster)
        full = [False]

        def begin(store: Store) -> Any:
            if full[0] and store is chain.move.src.agent.store:
                raise sqlite3.OperationalError("database or disk is full")
            return real(store)

        def fill(step: str) -> None:
            full[0] = full[0] or step == "source: dumped"

        real = Store._transaction
        monkeypatch.setattr(Store, "_transaction", begin)
        chain.move.src.on_fault_point = fill
        chain.source.does("checkpoint", *chain.dump)
        ended = await chain.source.checkpoint()
        assert ended.code == 0
        assert "disk is full" in ended.log
        assert chain.move.src.state() == {"source": "dumping"}
        full = [False]
        chain.move.src.on_fault_point = lambda _: None
        await until(lambda: chain.move.src.state() == {"source": "parked"})

    play(scenario)


def test_an_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "outcome")
    steps = [{"name": "frozen", "start": 1.0, "seconds": 0.5}]
    assert dump_outcome.read(path) is None
    dump_outcome.write(path, steps)
    assert dump_outcome.read(path) == steps
    assert list(tmp_path.iterdir()) == [tmp_path / "outcome"]
    dump_outcome.remove(path)
    assert dump_outcome.read(path) is None
