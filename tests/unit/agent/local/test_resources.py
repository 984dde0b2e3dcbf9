"""Whose a queue pair is, the kernel says; a guest that lists another's gets nothing by it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, FakeContainers, Host, ends
from guest_process import GuestProcess
from moves import Move

from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.local.resources import Resources
from migrrdma_runtime.base.errors import AgentError, MigrRDMAError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

STRANGER = "5" * 16


def entry(process: GuestProcess | int, qpn: int, peer: int, device: str = "rxe0") -> dict[str, Any]:
    """A queue pair as the kernel has it, made by this process."""
    pid = process if isinstance(process, int) else process.pid
    found = {
        "ifindex": 0,
        "ifname": device,
        "port": 1,
        "lqpn": qpn,
        "rqpn": peer,
        "type": "RC",
        "state": "RTS",
    }
    return {**found, **({"pid": pid, "comm": "app"} if pid else {})}


def kernel_knows(move: Move) -> None:
    """The kernels of both hosts have the two ends of the move's two connections."""
    move.src.resources.pairs = [entry(move.mover, 0x11 + i, 0x21 + i) for i in range(2)]
    move.peer.resources.pairs = [entry(move.partner, 0x21 + i, 0x11 + i) for i in range(2)]


async def stranger(cluster: Cluster, host: Host, qps: list[dict[str, Any]], **more: Any) -> GuestProcess:
    return await cluster.guest(host, "strangers", STRANGER, qps, **more)


async def refused(host: Host, container: str) -> str:
    with host.connect() as agent, pytest.raises(MigrRDMAError) as failure:
        await asyncio.to_thread(agent.checkpoint, container, leave_running=False)
    return str(failure.value)


def test_a_container_that_lists_anothers_queue_pairs_has_no_partner_quiesced(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        kernel_knows(move)
        await stranger(cluster, move.src, ends(move.src, 0x11, move.peer, 0x21, 2))
        said = await refused(move.src, "strangers")
        assert f"lists QP 0x11 of rxe0, which is process {move.mover.pid} (" in said
        assert "by the kernel's word" in said
        assert move.partner.asked == []
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_stranger_that_claims_a_partners_queue_pairs_stands_in_nobodys_way(play: Play) -> None:
    """Of two that claim the same, the one that lies is refused; with its word alone neither could be believed."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        kernel_knows(move)
        liar = await stranger(cluster, move.peer, ends(move.peer, 0x21, move.src, 0x11, 2))
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()
        assert liar.asked == [], "by the kernel's word it has none of these numbers: it is not even asked"

    play(scenario)


@pytest.mark.parametrize(
    ("of_kernel", "changes", "said"),
    [
        ([], {}, "lists QP 0x41 of rxe0, which the kernel does not have"),
        ([{"lqpn": 0x41, "rqpn": 0x99}], {}, "as connected to QP 0x21, which the kernel has connected to QP 0x99"),
        ([{"pid": None, "comm": "nvme_rdma", "lqpn": 0x41, "rqpn": 0x21}], {},
         "lists QP 0x41 of rxe0, which is the kernel's own (nvme_rdma)"),
        ([{"lqpn": 0x41, "rqpn": 0x21}], {"device": "rxe1"}, "lists QP 0x41 of rxe1, which the kernel does not have"),
        ([{"lqpn": 0x41, "rqpn": 0x21}], {"sgid": "127.0.0.9"}, "at GID 127.0.0.9, which is not that device's"),
    ],
)  # fmt: skip
def test_what_is_listed_is_compared_with_what_the_kernel_has(
    play: Play, of_kernel: list[dict[str, Any]], changes: dict[str, str], said: str
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        qps = ends(move.src, 0x41, move.peer, 0x21, 1)
        more = dict(changes)
        if "sgid" in more:
            del more["sgid"]
            qps[0]["sgid"] = "00" * 10 + "ffff7f000009"
        liar = await stranger(cluster, move.src, qps, **more)
        known = [entry(liar, 0, 0) | one for one in of_kernel]
        move.src.resources.pairs = [{k: v for k, v in one.items() if v is not None} for one in known]
        assert said in await refused(move.src, "strangers")
        assert move.partner.asked == []

    play(scenario)


def test_a_child_and_a_thread_that_has_ended_are_believed(play: Play) -> None:
    """What the kernel says of who made it is the thread; it says nothing once that has ended."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        child = 4_000_000  # without a connection of its own
        move.src.containers.members[child] = "c1"
        kernel_knows(move)
        move.src.resources.pairs = [entry(child, 0x11, 0x21), entry(0, 0x12, 0x22)]
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_host_whose_kernel_cannot_be_asked_goes_by_what_guests_say(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        assert move.src.resources.pairs is None
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)
    warnings = [one for one in caplog.messages if "cannot be learnt from the kernel" in one]
    assert len(warnings) == 3, "once on each host"


def ask(command: tuple[str, ...]) -> Any:
    return asyncio.run(Resources(FakeContainers(), Devices(), command).holdings())


def tool(path: Path, script: str) -> tuple[str, ...]:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(stat.S_IRWXU)
    return (str(path),)


def test_the_kernels_list_is_read_as_iproute2_writes_it(tmp_path: Path) -> None:
    """The first two lines are of a kernel's own queue pairs and of a UD one."""
    said = [
        {"ifindex": 0, "ifname": "rxe0", "port": 1, "lqpn": 1, "type": "GSI", "state": "RTS", "sq-psn": 0,
         "comm": "ib_core"},
        {"ifindex": 0, "ifname": "rxe0", "port": 1, "lqpn": 17, "type": "UD", "state": "RTS", "sq-psn": 0,
         "pid": 7, "comm": "a"},
        {"ifindex": 1, "ifname": "mlx5_0", "port": 1, "lqpn": 17, "pdn": 9, "rqpn": 18, "type": "RC", "state": "RTS",
         "rq-psn": 1, "sq-psn": 2, "path-mig-state": "MIGRATED", "pid": 8, "comm": "b"},
    ]  # fmt: skip
    found = ask(tool(tmp_path / "rdma", f"echo '{json.dumps(said)}'"))
    assert {key: (one.pid, one.peer) for key, one in found.pairs.items()} == {
        ("rxe0", 1): (0, None),
        ("rxe0", 17): (7, None),
        ("mlx5_0", 17): (8, 18),
    }


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'error: Protocol not supported' >&2; exit 1", "Protocol not supported"),
        ("echo '{}nonsense'", "Extra data"),
        ("""echo '[{"ifname": "rxe0"}]'""", "not a list of queue pairs"),
        ("echo '[7]'", "not a list of queue pairs"),
    ],
)
def test_a_kernel_that_says_nothing_of_it_is_told_from_one_without_queue_pairs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: str, said: str
) -> None:
    assert ask(tool(tmp_path / "rdma", script)) is None
    assert said in caplog.text
    assert ask(tool(tmp_path / "rdma", "true")).pairs == {}


def test_a_program_that_is_not_there_or_hangs_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(("/nonexistent/rdma",)) is None
    monkeypatch.setattr("migrrdma_runtime.agent.local.resources._DEADLINE_S", 0.1)
    assert ask(tool(tmp_path / "rdma", f"echo $$ >{tmp_path}/pid; exec sleep 60")) is None


@pytest.mark.parametrize("name", [b"\x01", b"\xff", rb"john\'s", rb"a\\'", rb"\"", rb"\\"])
def test_no_name_of_a_thread_keeps_the_kernel_from_being_believed(tmp_path: Path, name: bytes) -> None:
    """iproute2 writes what is in it as no JSON may have it."""
    said = b'[{"ifname":"rxe0","lqpn":17,"rqpn":33,"pid":7,"comm":"' + name + b'"}]'
    (tmp_path / "said").write_bytes(said)
    found = ask(("cat", str(tmp_path / "said")))
    assert [one.pid for one in found.pairs.values()] == [7]


def test_a_kernel_that_has_answered_is_not_done_without_later(tmp_path: Path) -> None:
    """Nobody may bring that about by a name: then everybody's word would count."""

    async def twice() -> None:
        resources = Resources(FakeContainers(), Devices(), ("cat", str(tmp_path / "said")))
        (tmp_path / "said").write_text("[]")
        assert await resources.holdings() is not None
        (tmp_path / "said").write_text('[{"')
        with pytest.raises(AgentError, match="cannot be read"):
            await resources.holdings()

    asyncio.run(twice())


def test_a_hundred_checkpoints_at_once_ask_the_kernel_twice(tmp_path: Path) -> None:
    """Each answer names every queue pair of the host."""

    async def ask_at_once(resources: Resources) -> None:
        first = asyncio.ensure_future(resources.holdings())
        await asyncio.sleep(0)
        assert None not in await asyncio.gather(first, *(resources.holdings() for _ in range(100)))

    program = tool(tmp_path / "rdma", f"echo >>{tmp_path}/asked; echo '[]'")
    asyncio.run(ask_at_once(Resources(FakeContainers(), Devices(), program)))
    assert len((tmp_path / "asked").read_text()) == 2


def test_a_thread_is_told_from_its_process() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        containers = FakeContainers()
        found: list[int] = []
        thread = threading.Thread(
            target=lambda: found.append(containers.process_of(threading.get_native_id()))
        )
        thread.start()
        thread.join()
        assert found == [os.getpid()]
        assert containers.process_of(other.pid) == other.pid
        assert other.stdin is not None
        other.stdin.close()
    assert containers.process_of(other.pid) == 0
