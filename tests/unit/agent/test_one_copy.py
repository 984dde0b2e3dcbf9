"""A container that is in an image is not started afresh beside it, and its image not thrown away with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster
from moves import Move
from runtime_on_host import RuntimeOnHost

from migrrdma_runtime.base.errors import RefusedError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def test_a_restart_policy_does_not_start_a_second_copy(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        runtime = RuntimeOnHost(move.src, cluster.directory / "runtime")
        assert (await runtime.create()).code == 0
        await move.checkpoint()
        await move.src.stop()  # nor when the agent is down
        ended = await runtime.create()
        assert ended.code == 1
        assert "container c1 is not created: its checkpoint (migration" in ended.log
        await move.src.start()
        move.lands_in = "c1"
        await move.restore()
        await move.both_go_on_after_the_move()
        while move.src.state() != {"source": "done"}:
            await asyncio.sleep(0.02)  # the agent's own state: no message tells of it
        assert (await runtime.create()).code == 0

    play(scenario)


def test_a_checkpoint_that_nobody_wants_is_given_up(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with move.src.connect() as agent:
            with pytest.raises(RefusedError, match="has made no checkpoint called migration"):
                await asyncio.to_thread(agent.abandon, "0" * 16, lost=False)
            await asyncio.to_thread(agent.abandon, move.document["migration"], lost=False)
        await move.partner.until_asked("UNDO")
        assert move.src.state() == {"source": "abandoned"}
        with pytest.raises(RefusedError, match="was given up by a person"):
            await move.restore()

    play(scenario)


def test_a_container_that_docker_removes_at_its_end_is_not_checkpointed_into_its_own_folder(
    play: Play,
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        runtime = RuntimeOnHost(move.src, cluster.directory / "runtime")
        folder = cluster.directory / "docker" / "c1"
        (folder / "checkpoints" / "new").mkdir(parents=True)
        (folder / "hostconfig.json").write_text('{"AutoRemove": true}')
        state = json.loads(runtime.state.read_text())
        state["config"]["mounts"] = [{"source": f"{folder}/hosts", "destination": "/etc/hosts"}]
        runtime.state.write_text(json.dumps(state))
        ended = await runtime.checkpoint()
        assert ended.code == 1
        assert "the container was started with --rm" in ended.log
        assert "checkpoint" not in runtime.calls
        assert move.src.state() == {}

    play(scenario)


def test_a_checkpoint_without_its_manifest_is_not_restored(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("dst", 3)
        runtime = RuntimeOnHost(host, cluster.directory / "runtime")
        runtime.images.mkdir()
        (runtime.images / "migrrdma.img").touch()
        ended = await runtime.restore()
        assert ended.code == 1
        assert "migrrdma.json is missing, and the checkpoint holds RDMA" in ended.log
        assert "restore" not in runtime.calls

    play(scenario)
