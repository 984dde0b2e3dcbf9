"""A hundred partners: asked at once, none delayed by another, and the work grows with them, not with their QPs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cluster
import pytest
from cluster import Cluster, Host, ends, hexadecimal
from guest_process import PATIENT_S
from many_partners import ManyPartners
from moves import Move

from migrrdma_runtime.agent.peers.transport import Routed
from migrrdma_runtime.agent.roles import destination
from migrrdma_runtime.agent.roles.records import DestinationData, SwitchedPartner
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import MigrRDMAError, RestoreError, UnreachableError
from migrrdma_runtime.wire.agent_messages import Contact

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_PARTNERS = 100


@dataclass
class Crowd:
    """A container with so many partners, and all that is said and written while it moves."""

    move: Move
    partners: dict[str, ManyPartners]
    addresses: list[str]

    @classmethod
    async def gather(cls, cluster: Cluster, count: int, qps_each: int = 1) -> Crowd:
        """The hosts and the container."""
        src, dst = [await cluster.host(name, number) for number, name in enumerate(("src", "dst"), 2)]
        hosts = [f"127.1.0.{number}" for number in range(1, count + 1)]
        addresses = [f"{host}:{cluster.port}" for host in hosts]
        pairs = [
            {
                "context": 1,
                "vqpn": number,
                "pqpn": number,
                "dest_pqpn": number,
                "sgid": hexadecimal(src.gid),
                "dgid": gids.packed(f"::ffff:{host}").hex(),
            }
            for number, host in enumerate([one for one in hosts for _ in range(qps_each)], 0x100)
        ]
        mover = await cluster.guest(src, "c1", "a" * 16, pairs)
        partners = {host.name: _put_between(host, addresses) for host in (src, dst)}
        return cls(Move(cluster, src, dst, src, mover, mover), partners, addresses)

    @property
    def asked(self) -> Counter[str]:
        """How many times a partner was asked what."""
        return sum((one.asked for one in self.partners.values()), Counter[str]())


def _put_between(host: Host, addresses: list[str]) -> ManyPartners:
    transport = host.agent.transport
    assert isinstance(transport, Routed)
    transport.others = partners = ManyPartners(transport.others, addresses)
    return partners


def test_all_partners_are_asked_at_once(play: Play) -> None:
    async def scenario(hosts: Cluster) -> None:
        crowd = await Crowd.gather(hosts, _PARTNERS)
        await crowd.move.checkpoint()
        await crowd.move.restore()
        once = ("suspend", "drain", "parked", "confirm", "prepare", "switch")
        # For its name, and again under its name.
        assert crowd.asked == {"hello": 2 * _PARTNERS, **dict.fromkeys(once, _PARTNERS)}

    play(scenario)


def test_a_checkpoint_from_elsewhere_has_no_more_asked_at_once_than_the_agent_has_connections_for() -> None:
    """It may name 65,536; and when one is not there, nobody else has to be."""
    most = destination._CONFIRMED_AT_ONCE
    under_way, highest, asked = 0, 0, 0

    async def ask(contact: Contact, *_: Any) -> None:
        nonlocal under_way, highest, asked
        under_way += 1
        asked += 1
        highest = max(highest, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        if contact.name == "gone":
            raise UnreachableError("gone")

    def confirm(names: list[str]) -> None:
        partners = [SwitchedPartner(name, f"{name}:1", "") for name in names]
        data = SimpleNamespace(partners=partners, show_claim=lambda *_: {})
        deadlines = SimpleNamespace(peer=1, guest=1)
        agent: Any = SimpleNamespace(
            store=None,
            handlers={},
            config=SimpleNamespace(deadlines=deadlines),
            ask=ask,
            fault_point=lambda _: None,
        )
        record: Any = SimpleNamespace(id="m", data=data)
        asyncio.run(destination.Destination(agent)._confirm(record))

    confirm([str(number) for number in range(3 * most)])
    assert (highest, asked) == (most, 3 * most)
    asked = 0
    with pytest.raises(UnreachableError, match="gone"):
        confirm(["gone", *(str(number) for number in range(3 * most))])
    assert asked == most


def test_a_partner_that_is_silent_does_not_keep_the_others_when_a_dump_is_undone(play: Play) -> None:
    async def scenario(hosts: Cluster) -> None:
        hosts.impatient_hosts(peer=5, guest=5)
        crowd = await Crowd.gather(hosts, _PARTNERS)
        asked = crowd.partners["src"]
        asked.silent["undo"] = crowd.addresses[0]
        await crowd.move.checkpoint(succeeded=False)
        assert asked.answered["undo"] == _PARTNERS - 1

    play(scenario)


def test_a_partner_that_is_silent_does_not_keep_the_others_when_a_claim_is_given_back(play: Play) -> None:
    async def scenario(hosts: Cluster) -> None:
        hosts.impatient_hosts(peer=5)
        crowd = await Crowd.gather(hosts, _PARTNERS)
        await crowd.move.checkpoint()
        asked = crowd.partners["dst"]
        asked.silent["retract"] = crowd.addresses[0]

        def refuse(step: str) -> None:
            if step == "destination: commit":
                raise RestoreError("by the test")

        crowd.move.dst.on_fault_point = refuse
        with pytest.raises(MigrRDMAError):
            await crowd.move.restore()
        assert asked.answered["retract"] == _PARTNERS - 1

    play(scenario)


def test_a_partner_that_is_silent_does_not_keep_the_application_from_the_others(play: Play) -> None:
    async def scenario(hosts: Cluster) -> None:
        crowd = await Crowd.gather(hosts, _PARTNERS)
        await crowd.move.checkpoint()
        asked = crowd.partners["dst"]
        asked.silent["switch"] = crowd.addresses[0]
        await crowd.move.restore()
        assert crowd.move.restored is not None
        await crowd.move.restored.until_asked("RESUME")
        assert (asked.answered["switch"], asked.waited_for) == (_PARTNERS - 1, [])

    play(scenario)


async def _work_of_a_move(hosts: Cluster, partners: int, qps_each: int) -> dict[str, Counter[str]]:
    """What a move has its hosts write durably, and its processes and partners asked."""
    crowd = await Crowd.gather(hosts, partners, qps_each)
    move, written = crowd.move, Counter[str]()
    for host in (move.src, move.dst):

        def note(statement: str, name: str = host.name) -> None:
            written[name] += statement == "COMMIT"

        host.agent.store._db.set_trace_callback(note)
    await move.checkpoint()
    await move.restore()
    await asyncio.gather(
        *(host.agent.tasks.decided(move.document["migration"]) for host in (move.src, move.dst))
    )
    ended = move.dst.agent.store.find(move.document["migration"], DestinationData)
    assert move.restored is not None and ended is not None
    async with asyncio.timeout(PATIENT_S):
        while not ended.data.told:  # the last that is written, after the runtime has its answer
            await asyncio.sleep(0.02)
    return {
        "written": written,
        "partners asked": crowd.asked,
        "process asked": Counter([*move.mover.asked, *move.restored.asked]),
    }


def test_messages_and_durable_writes_are_as_many_for_one_queue_pair_as_for_many(tmp_path: Path) -> None:
    found = []

    async def with_one(hosts: Cluster) -> None:
        found.append(await _work_of_a_move(hosts, 3, qps_each=1))

    async def with_many(hosts: Cluster) -> None:
        found.append(await _work_of_a_move(hosts, 3, qps_each=20))

    for name, scenario in (("one", with_one), ("many", with_many)):
        (tmp_path / name).mkdir()
        cluster.play(tmp_path / name, scenario)
    assert found[0] == found[1]
    assert found[0]["written"]["src"] <= 8
    assert found[0]["written"]["dst"] <= 12


def test_a_process_that_hangs_does_not_keep_its_neighbours_from_going_on(play: Play) -> None:
    async def scenario(hosts: Cluster) -> None:
        hosts.impatient_hosts(guest=5)
        src, peer = [await hosts.host(name, number) for number, name in ((2, "src"), (4, "peer"))]
        mover = await hosts.guest(src, "c1", "a" * 16, ends(src, 0x11, peer, 0x21, 2))
        hangs, goes_on = [
            await hosts.guest(peer, f"p{n}", f"{n}" * 16, ends(peer, 0x21 + n, src, 0x11 + n, 1))
            for n in (0, 1)
        ]
        move = Move(hosts, src, src, peer, mover, hangs)
        await hangs.tell("fault UNDO silent")
        undone = asyncio.ensure_future(move.checkpoint(succeeded=False))
        await goes_on.until_asked("UNDO")
        assert {"disconnected": True} not in hangs.events, "its deadline has passed first"
        await undone

    play(scenario)
