"""The real guest library under the real agent: what can be shown without CRIU and a second host."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from cluster import Cluster, Host, ends, keep_alive
from guest_agent import Program
from guest_build import Built, compile_c
from guest_process import PATIENT_S, GuestProcess
from moves import Move
from sysfs import make_sysfs

from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.local.guest_objects import GuestState, QueuePair
from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.base import gids, paths
from migrrdma_runtime.base.errors import MigrRDMAError


async def connected(host: Host, container: str = "c1") -> GuestState:
    """The guest's state, once it is connected."""
    async with asyncio.timeout(PATIENT_S):
        while not host.agent.guests.of_container(container):
            await asyncio.sleep(0.02)  # another process's connection
    return host.agent.guests.of_container(container)[0].state


def play(tmp_path: Path, built: Built, scenario: Callable[[Host, Program], Any]) -> None:
    """Run a scenario with one agent, and one program that talks to itself and checks every byte."""

    async def run() -> None:
        cluster = Cluster(tmp_path / "cluster")
        try:
            host = cluster.prepare("src", 2)
            # The devices that the program opens.
            for device, address in (("fake0", "10.0.0.1"), ("fake1", "10.0.0.2")):
                make_sysfs(tmp_path / "sysfs", gid_of(address), device)
            host.devices = Devices(tmp_path / "sysfs")
            await host.start()
            environment = {**built.environment, "MIGRRDMA_SOCKET": str(host.config.guest_socket)}

            def start() -> Program:
                return Program([built.traffic], environment, tmp_path / "log")

            # The kernel says which process calls, but only after it was started: whoever calls is in c1.
            host.containers.everybody_else = "c1"
            with await asyncio.to_thread(start) as program:
                assert await connected(host) is GuestState.RUNNING
                await scenario(host, program)
                await asyncio.to_thread(program.wait_for_progress)
                assert await asyncio.to_thread(program.verdict) == "exact"
        finally:
            await cluster.close()

    (tmp_path / "cluster").mkdir()
    asyncio.run(run())


def test_a_dump_that_fails_leaves_the_traffic_exact(tmp_path: Path, built: Built) -> None:
    async def scenario(host: Host, program: Program) -> None:
        for _ in range(5):
            with host.connect() as agent:
                ready = await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
                assert ready is not None
                assert ready["manifest"]["internal"]
                assert not ready["manifest"]["partners"]
                assert not host.agent.guests.of_container("c1")  # it has let go of us, to be dumped
                await asyncio.to_thread(agent.report, ready["migration"], succeeded=False)
            assert await connected(host) is GuestState.RUNNING
            await asyncio.to_thread(program.wait_for_progress)

    play(tmp_path, built, scenario)


@pytest.mark.parametrize("when", ["describe", "dumping"])
def test_an_agent_that_dies_leaves_the_traffic_exact(tmp_path: Path, built: Built, when: str) -> None:
    async def scenario(host: Host, program: Program) -> None:
        from migrrdma_runtime.base.errors import UnreachableError

        host.kill_at = f"source: {when}"
        async with keep_alive(host):
            with host.connect() as agent, pytest.raises(UnreachableError):
                await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
        assert await connected(host)
        await asyncio.to_thread(program.wait_for_progress)

    play(tmp_path, built, scenario)


# --- further moves ---------------------------------------------------------------------------------------


def gid_of(address: str) -> str:
    return gids.from_address(ipaddress.ip_address(address))


async def pairs_of(host: Host, container: str) -> list[QueuePair]:
    """The connections as the guest tells them to the agent."""
    await connected(host, container)
    [guest] = host.agent.guests.of_container(container)
    return [pair for pair in await guest.queue_pairs(PATIENT_S) if pair.is_connected]


def test_a_process_moves_on_and_on_and_its_traffic_stays_exact(tmp_path: Path, built: Built) -> None:
    """Both ends in one process; the hosts differ in their devices, the "restore" is the fake device's."""
    socket_dir = tmp_path / "socket"
    devices = {
        "a": {"fake0": "10.0.0.1", "fake1": "10.0.0.2"},
        "b": {"fake1": "10.0.0.2"},
        "c": {"fake0": "10.0.0.1"},
    }

    async def prepare(cluster: Cluster) -> dict[str, Host]:
        hosts = {}
        for number, (name, there) in enumerate(devices.items(), 2):
            host = hosts[name] = cluster.prepare(name, number)
            sysfs = tmp_path / name / "devices"
            for device, address in there.items():
                make_sysfs(sysfs, gid_of(address), device)
            host.devices = Devices(sysfs)
            host.containers.everybody_else = f"on-{name}"
            await host.start()
        return hosts

    async def move(program: Program, here: Host, there: Host, attempts: int) -> None:
        [guest] = here.agent.guests.of_container(f"on-{here.name}")
        (there.config.guest_dir / guest.build_id).mkdir(exist_ok=True)
        (there.config.guest_dir / guest.build_id / paths.GUEST_LIBRARY).touch()
        with here.connect() as agent:
            ready = await asyncio.to_thread(agent.checkpoint, f"on-{here.name}", leave_running=False)
            assert ready is not None
            await asyncio.to_thread(program.tell, "restore")
            await asyncio.to_thread(agent.report, ready["migration"], succeeded=True)
        for attempt in range(attempts):
            with there.connect() as agent:
                migration = await asyncio.to_thread(agent.restore, f"on-{there.name}", ready["manifest"])
                last = attempt == attempts - 1
                if last:
                    point_to(there)
                    await asyncio.to_thread(agent.report, migration, succeeded=True)
                else:
                    with pytest.raises(MigrRDMAError):
                        await asyncio.to_thread(agent.report, migration, succeeded=False)

    def point_to(host: Host) -> None:
        draft = tmp_path / "draft"
        draft.symlink_to(host.config.guest_socket.parent)
        draft.replace(socket_dir)

    async def run() -> None:
        cluster = Cluster(tmp_path)
        try:
            hosts = await prepare(cluster)
            point_to(hosts["a"])
            environment = {**built.environment, "MIGRRDMA_SOCKET": str(socket_dir / paths.GUEST_SOCKET)}
            here = hosts["a"]
            with await asyncio.to_thread(
                Program, [built.traffic, "-e"], environment, tmp_path / "log"
            ) as program:
                await connected(here, "on-a")
                for name, attempts in (("b", 1), ("c", 2), ("a", 1), ("a", 1), ("c", 1), ("b", 1)):
                    there = hosts[name]
                    await move(program, here, there, attempts)
                    here = there
                    pairs = await pairs_of(here, f"on-{name}")
                    own = {gid_of(address) for address in devices[name].values()}
                    assert {pair.sgid for pair in pairs} == {pair.dgid for pair in pairs} <= own
                    assert {pair.end for pair in pairs} == {pair.other_end for pair in pairs}
                    await asyncio.to_thread(program.wait_for_progress)
                assert await asyncio.to_thread(program.verdict) == "exact"
        finally:
            await cluster.close()

    asyncio.run(run())


@dataclass
class Waiting:
    """What :class:`Move` wants to know of a partner, of one with the real library."""

    program: Program

    @property
    def pid(self) -> int:
        return self.program.process.pid

    @property
    def is_alive(self) -> bool:
        return self.program.process.poll() is None


def play_partner(tmp_path: Path, built: Built, scenario: Callable[[Move, Program], Any]) -> None:
    """Run a scenario with a fake mover and a partner that has the real guest library, on a device of 10.0.0.1."""
    compile_c(tmp_path / "waits", Path(__file__).with_name("waits.c"), "-libverbs")

    async def run() -> None:
        cluster = Cluster(tmp_path)
        try:
            hosts = [
                cluster.prepare(name, number)
                for number, name in enumerate(("src", "dst", "peer", "third"), 2)
            ]
            src, dst, peer, _ = hosts
            home = peer.config.tls.certificate.parent
            certificates.issue(tmp_path / "ca", "peer", [peer.address, "10.0.0.1"], home)
            for host in hosts:
                there = (("10.0.0.1/32", f"{peer.address}:{cluster.port}"),)
                host.config = replace(host.config, peers=there)
                await host.start()
            peer.containers.everybody_else = "p1"
            environment = {**built.environment, "MIGRRDMA_SOCKET": str(peer.config.guest_socket)}
            with await asyncio.to_thread(
                Program, [tmp_path / "waits", "2"], environment, tmp_path / "log"
            ) as program:
                await connected(peer, "p1")
                await asyncio.to_thread(program.tell, f"connect {src.address} 33")
                qps = ends(src, 33, peer, 17, 2)
                for qp in qps:
                    qp["dgid"] = gids.packed(gid_of("10.0.0.1")).hex()
                mover = await cluster.guest(src, "c1", "a" * 16, qps)
                partner = cast("GuestProcess", Waiting(program))
                await scenario(Move(cluster, src, dst, peer, mover, partner), program)
                # Whatever happened, to the application these are the connections that it has made.
                seen = await asyncio.to_thread(program.tell, "see")
                assert seen.split() == [f"17>{src.address}:33", f"18>{src.address}:34"]
        finally:
            await cluster.close()

    asyncio.run(run())


async def is_connected_to(move: Move, host: Host) -> None:
    """Whether the partner's path leads to what the container has on that host."""
    guest = move.restored or move.mover
    there = {(qp["sgid"], qp["pqpn"], qp["dest_pqpn"]) for qp in (await guest.show())["qps"]}
    mine = await pairs_of(move.peer, "p1")
    assert {(gids.packed(pair.dgid).hex(), pair.dest_pqpn, pair.pqpn) for pair in mine} == there
    assert {pair.dgid for pair in mine} == {host.gid}
    assert await connected(move.peer, "p1") is GuestState.RUNNING


def test_a_real_partner_follows_move_after_move_while_its_agent_is_restarted(
    tmp_path: Path, built: Built
) -> None:
    async def scenario(move: Move, _: Program) -> None:
        hosts = move.cluster.hosts
        for name in ("dst", "third", "src", "dst"):
            if move.restored:
                move = move.onward(hosts[name])
            await move.checkpoint()
            await move.peer.restart()
            assert await connected(move.peer, "p1") is GuestState.QUIESCED
            with pytest.raises(MigrRDMAError):
                await move.restore(succeeded=False)
            move.dst.kill_at = "destination: commit"  # when it has prepared
            async with keep_alive(move.dst):
                with pytest.raises(MigrRDMAError):
                    await move.restore()
                await move.dst.alive.wait()
            await move.peer.restart()
            await move.restore()
            await is_connected_to(move, hosts[name])

    play_partner(tmp_path, built, scenario)


def test_a_real_partner_goes_back_when_its_agent_was_restarted_meanwhile(
    tmp_path: Path, built: Built
) -> None:
    async def scenario(move: Move, _: Program) -> None:
        for _turn in range(2):
            with move.src.connect() as agent:
                ready = await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
                assert ready is not None
                await move.peer.stop()
                await asyncio.to_thread(agent.report, ready["migration"], succeeded=False)
            await move.peer.start()
            async with asyncio.timeout(PATIENT_S):
                while await connected(move.peer, "p1") is not GuestState.RUNNING:
                    await asyncio.sleep(0.02)  # its agent asks the source from time to time
            await move.mover.until(lambda: "UNDO" in move.mover.asked)
            await is_connected_to(move, move.src)
        await move.checkpoint()
        await move.restore()
        await is_connected_to(move, move.dst)

    play_partner(tmp_path, built, scenario)
