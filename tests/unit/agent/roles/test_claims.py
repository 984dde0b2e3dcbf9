"""A claim is the agent's that it was granted to, by its certificate.

A third agent here has a certificate of the cluster and a copy of the manifest: with it every key, and the right to
claim what nobody has claimed. What another has claimed is not its own, whatever it says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster, Host, dropping
from moves import Move

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.base.errors import RefusedError
from migrrdma_runtime.wire import tokens

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


class Bearer:
    """An agent that says what it likes, and shows whatever the manifest gives it."""

    def __init__(self, move: Move, host: Host) -> None:
        self._move = move
        self._host = host

    @property
    def contact(self) -> dict[str, str]:
        return self._host.agent.contact.as_message()

    async def ask(self, host: Host, name: str, **more: Any) -> Any:
        key = tokens.key_for(self._move.document["token"], host.name)
        request = {"migration": self._move.document["migration"], "key": key, **more}
        client = GrpcTransport(certificates.load(self._host.config.tls))
        try:
            return await client.ask(host.agent.contact.address, name, request, 5)
        finally:
            await client.close()

    async def claim(self, attempt: str) -> int:
        answer = await self.ask(self._move.src, "claim", attempt=attempt, destination=self.contact)
        return int(answer["epoch"])

    async def prepare(self, epoch: int) -> Any:
        """Have the partner connect to us."""
        peer = self._move.peer
        connections = [
            {
                "gid": peer.gid, "qpn": 0x21 + i, "new_peer_gid": self._host.gid, "new_peer_qpn": 0x66,
                "sq_psn": 1, "rq_psn": 2, "peer": "e" * 16,
            }
            for i in range(2)
        ]  # fmt: skip
        more = {"destination": self.contact, "connections": connections, "places": [], "keys": {}}
        return await self.ask(peer, "prepare", epoch=epoch, **more)


async def parked(cluster: Cluster) -> tuple[Move, Bearer, Bearer]:
    """A checkpoint that waits, an agent that will restore it, and a third one."""
    move = await Move.begin(cluster)
    third = await cluster.host("third", 5)
    await move.checkpoint()
    return move, Bearer(move, move.dst), Bearer(move, third)


@pytest.mark.parametrize("name", ["commit", "release", "finish"])
def test_only_the_holder_acts_on_its_claim(play: Play, name: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move, holder, third = await parked(cluster)
        epoch = await holder.claim("1" * 16)
        with pytest.raises(RefusedError, match=r"agent third does not hold claim 1 .* granted to dst"):
            await third.ask(move.src, name, epoch=epoch)
        assert move.src.state() == {"source": "claimed"}
        await holder.ask(move.src, "commit", epoch=epoch)
        assert move.src.state() == {"source": "committed"}

    play(scenario)


def test_a_copied_manifest_does_not_get_the_authority_a_second_time(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move, _, third = await parked(cluster)
        with dropping(move.dst, "finish", reply=False):
            await move.restore()
            with pytest.raises(RefusedError, match="agent third does not hold claim 1"):
                await third.ask(move.src, "release", epoch=1)
            with pytest.raises(RefusedError, match="was restored on dst already"):
                await third.claim("2" * 16)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_claim_is_not_told_again_to_somebody_else(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move, holder, third = await parked(cluster)
        assert await holder.claim("1" * 16) == 1
        assert await holder.claim("1" * 16) == 1  # the first answer was lost
        # As its agent does not know of it, it is free; but then it is another claim.
        assert await third.claim("1" * 16) == 2
        with pytest.raises(RefusedError, match=r"claim 1 .* has lapsed"):
            await holder.ask(move.src, "commit", epoch=1)

    play(scenario)


@pytest.mark.parametrize("epoch", [1, 1 << 31])
def test_a_partner_prepares_for_nobody_to_whom_the_source_has_granted_nothing(play: Play, epoch: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        move, _, third = await parked(cluster)
        with pytest.raises(RefusedError, match=f"claim {epoch} .* was never granted, says src"):
            await third.prepare(epoch)
        with pytest.raises(RefusedError, match="was never granted"):
            await third.ask(move.peer, "confirm", epoch=epoch)
        assert "PREPARE" not in move.partner.asked
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_partner_prepares_for_nobody_who_shows_another_ones_claim(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move, holder, third = await parked(cluster)
        epoch = await holder.claim("1" * 16)
        for known in (False, True):  # by the partner: it asks the source once
            with pytest.raises(RefusedError, match=f"agent third does not hold claim {epoch} .* to dst"):
                await third.prepare(epoch)
            if not known:
                await holder.ask(move.peer, "confirm", epoch=epoch)
        assert "PREPARE" not in move.partner.asked

    play(scenario)


def test_nobody_else_ends_a_partners_wait_for_a_claim(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(ask=60)  # a partner that asked would hear that the holder knows nothing of it
        move, holder, third = await parked(cluster)
        # Of a claim to come: it would be too old by then.
        await third.ask(move.peer, "retract", epoch=1 << 31)
        epoch = await holder.claim("1" * 16)
        await holder.prepare(epoch)
        assert move.peer.state() == {"partner": "prepared"}
        for name in ("switch", "retract"):
            with pytest.raises(RefusedError, match=f"agent third does not hold claim {epoch}"):
                await third.ask(move.peer, name, epoch=epoch)
        assert move.peer.state() == {"partner": "prepared"}
        await holder.ask(move.peer, "retract", epoch=epoch)
        await holder.ask(move.src, "release", epoch=epoch)
        assert move.peer.state() == {"partner": "suspended"}
        await move.restore()
        await move.both_go_on_anew()

    play(scenario)
