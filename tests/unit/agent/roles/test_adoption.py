"""A checkpoint whose host is gone: another decides about it once every partner has agreed, and that one never again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster import Cluster, Host, dropping
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.agent.roles import partner
from migrrdma_runtime.agent.roles.partners_arbiter import PartnersArbiter
from migrrdma_runtime.agent.roles.records import PartnerData, PartnerRecord, SourceData
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import boot_clock
from migrrdma_runtime.base.errors import ManifestError, MigrRDMAError, RefusedError, UnreachableError
from migrrdma_runtime.wire import manifest, tokens
from migrrdma_runtime.wire.agent_messages import GENERATION_CLAIMS, Contact

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it


async def parked(cluster: Cluster) -> Move:
    """A checkpoint that waits, and of which the partner has heard."""
    move = await Move.begin(cluster)
    await move.checkpoint()
    await until(lambda: has_heard(move))
    return move


def has_heard(move: Move) -> bool:
    record = move.peer.agent.store.find(move.document["migration"], PartnerData)
    return record is not None and record.data.parked


async def adopt(move: Move, host: Host, fenced: str = "src") -> Any:
    """What the command does: the manifest that it writes."""

    def ask() -> Any:
        with host.connect() as agent:
            return agent.adopt(move.document, fenced)

    return await asyncio.to_thread(ask)


async def abandon(move: Move, host: Host) -> None:
    def ask() -> str:
        with host.connect() as agent:
            return agent.abandon(move.document["migration"], lost=False)

    await asyncio.to_thread(ask)


def source_is(host: Host, state: State) -> bool:
    return host.state().get("source") == state.value


def test_a_checkpoint_outlives_its_host(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        await move.src.stop()
        move.document = await adopt(move, move.dst)
        assert move.document["source"] == move.dst.agent.contact.as_message()
        manifest.check_whole(move.document)
        assert move.dst.state() == {"source": "parked"}
        await move.restore()
        await move.both_go_on_after_the_move()
        record = move.dst.agent.store.find(move.document["migration"], SourceData)
        assert record is not None
        assert (record.data.epoch, record.data.fenced) == (GENERATION_CLAIMS + 1, "src")

    play(scenario)


def test_any_host_restores_what_was_adopted(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        third = await cluster.host("third", 5)
        await move.src.stop()
        move.document = await adopt(move, third)
        await move.restore()
        await move.both_go_on_after_the_move()
        await until(lambda: source_is(third, State.DONE))

    play(scenario)


def test_a_source_that_comes_back_finds_itself_superseded(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        old = move.document
        await move.src.stop()
        move.document = await adopt(move, move.dst)
        await move.src.start()
        await until(lambda: source_is(move.src, State.SUPERSEDED))
        for host in (move.src, move.dst):
            again = Move(cluster, move.src, host, move.peer, move.mover, move.partner, document=old)
            with pytest.raises(RefusedError, match=r"is not this host's any more: dst is to decide about it"):
                await again.restore()
        await move.restore()
        await move.both_go_on_after_the_move()
        await abandon(move, move.src)
        assert move.src.state() == {"source": "abandoned", "destination": "released"}

    play(scenario)


def test_a_source_that_was_only_cut_off_grants_claims_that_come_to_nothing(play: Play) -> None:
    """Its agent was never restarted: the partner refuses what it grants, and it asks why."""

    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        old = move.document
        agent = move.src.daemon
        assert agent is not None
        with dropping(move.dst, "hello", reply=False), dropping(move.peer, "outcome", reply=False):
            move.document = await adopt(move, move.dst)
        assert source_is(move.src, State.PARKED)
        again = Move(cluster, move.src, move.src, move.peer, move.mover, move.partner, document=old)
        with pytest.raises(RefusedError, match=r"claim 1 .* has lapsed: dst has adopted its checkpoint"):
            await again.restore()
        assert "PREPARE" not in move.partner.asked
        await until(lambda: source_is(move.src, State.SUPERSEDED))
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_late_word_of_the_former_arbiter_ends_nothing(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked before another one was agreed to, and answers afterwards that it knows of nothing."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        ask = move.peer.agent.ask

        async def late(contact: Any, what: str, request: Any, *more: Any) -> Any:
            if (contact.name, what) != ("src", "outcome") or asked.is_set():
                return await ask(contact, what, request, *more)
            asked.set()
            await answered.wait()
            return {"state": "unknown"}

        monkeypatch.setattr(move.peer.agent, "ask", late)
        await asked.wait()
        await move.src.stop()
        move.document = await adopt(move, move.dst)
        answered.set()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_the_silence_of_the_former_arbiter_ends_nothing(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked before another one was agreed to, and the partner has waited for too long when it gives that up."""
    asked, over = asyncio.Event(), asyncio.Event()
    late = 0.0

    async def scenario(cluster: Cluster) -> None:
        nonlocal late
        move = await parked(cluster)
        ask, looked = move.peer.agent.ask, asyncio.Event()

        async def silent(contact: Any, what: str, request: Any, *more: Any) -> Any:
            if what == "outcome" and asked.is_set() and contact.name == "dst":
                looked.set()  # by the next look around: the last one is over
            if (contact.name, what) != ("src", "outcome") or asked.is_set():
                return await ask(contact, what, request, *more)
            asked.set()
            await over.wait()
            raise UnreachableError("src is gone")

        monkeypatch.setattr(move.peer.agent, "ask", silent)
        await asked.wait()
        await move.src.stop()
        late = 2 * move.peer.agent.config.deadlines.partner
        move.document = await adopt(move, move.dst)
        over.set()
        await until(lambda: looked.is_set() or move.peer.state() != {"partner": "suspended"})
        await move.restore()
        await move.both_go_on_after_the_move()

    monkeypatch.setattr(partner, "boot_clock", lambda: boot_clock() + late)
    play(scenario)


def test_a_partner_asks_whether_it_was_parked_if_it_could_not_be_told(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        with dropping(move.src, "parked", reply=False):
            await move.checkpoint()
            await until(lambda: has_heard(move))

    play(scenario)


def test_nobody_who_answers_is_superseded(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        with pytest.raises(RefusedError, match=r"agent of src answers at 127.0.0.2:.* it is not gone"):
            await adopt(move, move.dst)
        # Also where only the partner reaches it, and whoever asks says that nobody does.
        with (
            dropping(move.dst, "hello", reply=False),
            pytest.raises(RefusedError, match="agent of src answers its partner peer: it is not gone"),
        ):
            await adopt(move, move.dst)
        await abandon(move, move.dst)
        assert move.dst.state() == {"source": "superseded"}
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_silence_of_a_former_arbiter_is_not_taken_for_the_next_ones(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it was asked, another host became the arbiter: that one has not been asked, and answers."""

    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        third = await cluster.host("third", 5)
        await move.src.stop()
        asked, go_on = asyncio.Event(), asyncio.Event()
        look = PartnersArbiter._require_silent

        async def look_slowly(self: PartnersArbiter, record: PartnerRecord, arbiter: Contact) -> Any:
            found = await look(self, record, arbiter)
            if arbiter.name == "third":
                asked.set()
                await go_on.wait()
            return found

        monkeypatch.setattr(PartnersArbiter, "_require_silent", look_slowly)
        request = {
            "migration": move.document["migration"],
            "key": tokens.key_for(move.document["token"], "peer"),
            "arbiter": third.agent.contact.as_message(),
            "generation": 7,
            "fenced": "dst",
        }
        late = asyncio.ensure_future(third.agent.ask(move.peer.agent.contact, "adopt", request, PATIENT_S))
        async with asyncio.timeout(PATIENT_S):
            await asked.wait()
        move.document = await adopt(move, move.dst)
        go_on.set()
        with pytest.raises(
            RefusedError, match=r"dst has adopted migration .* meanwhile, says its partner peer"
        ):
            await late
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_two_that_adopt_at_once_do_not_both_get_it(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        third = await cluster.host("third", 5)
        await move.src.stop()
        answers = await asyncio.gather(adopt(move, move.dst), adopt(move, third), return_exceptions=True)
        [error] = [one for one in answers if isinstance(one, BaseException)]
        assert isinstance(error, MigrRDMAError)
        won, lost = (move.dst, third) if isinstance(answers[1], BaseException) else (third, move.dst)
        assert source_is(won, State.PARKED) and source_is(lost, State.ADOPTING)
        with pytest.raises(RefusedError, match=f"the agent of {won.name} answers its partner peer"):
            await adopt(move, lost)
        # The one that has won is gone as well: then it is the other's after all.
        await won.stop()
        move.document = await adopt(move, lost, fenced=won.name)
        await move.restore(lost)
        await move.both_go_on_after_the_move()
        await won.start()
        await until(lambda: source_is(won, State.SUPERSEDED))

    play(scenario)


def test_an_adoption_that_is_struck_is_made_good_by_the_next(play: Play) -> None:
    """The partner has agreed, and the answer is lost: nobody decides until the command is run again."""

    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        await move.src.stop()
        with dropping(move.dst, "adopt", reply=True), pytest.raises(MigrRDMAError):
            await adopt(move, move.dst)
        await move.dst.restart()
        assert move.dst.state() == {"source": "adopting"}
        with pytest.raises(MigrRDMAError):
            await move.restore()
        await until(lambda: move.peer.state() == {"partner": "suspended"})
        move.document = await adopt(move, move.dst)
        assert await adopt(move, move.dst) == move.document  # as often as one likes
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_who_has_left_it_to_another_host_does_not_end_it_for_that_one(play: Play) -> None:
    """A partner that has agreed to nobody else, or to this one, still asks it."""

    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        third = await cluster.host("third", 5)
        await move.src.stop()
        with dropping(move.dst, "adopt", reply=True), pytest.raises(MigrRDMAError):
            await adopt(move, move.dst)
        await abandon(move, move.dst)
        await abandon(move, move.dst)
        await move.dst.restart()
        assert move.dst.state() == {"source": "abandoned"}
        with pytest.raises(MigrRDMAError, match="run the command again"):
            await adopt(move, third, fenced="dst")
        move.document = await adopt(move, third, fenced="dst")
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_what_is_restored_elsewhere_is_not_adopted(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        third = await cluster.host("third", 5)
        await move.restore()
        await until(lambda: move.peer.state() == {"partner": "switched"})
        await move.src.stop()
        with pytest.raises(RefusedError, match="is switched at its partner peer"):
            await adopt(move, third)
        with pytest.raises(RefusedError, match=r"is (committed|done) here, as container c2"):
            await adopt(move, move.dst)
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_partner_that_has_prepared_for_another_does_not_agree(play: Play) -> None:
    """The source may have committed it before it was gone, and the other one may run."""

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(ask=60)  # a partner that asked would hear that it was given back
        move = await parked(cluster)
        third = await cluster.host("third", 5)
        record = move.peer.agent.store.find(move.document["migration"], PartnerData)
        assert record is not None
        move.peer.agent.store.move(
            record, State.PREPARED, epoch=1, granted=1, granted_to="dst", destination=move.dst.agent.contact
        )
        await move.src.stop()
        with pytest.raises(RefusedError, match=r"peer has prepared migration .* for dst, where it may run"):
            await adopt(move, third)
        assert not record.data.generation

    play(scenario)


def test_a_partner_that_knows_of_no_dump_does_not_agree(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(ask=60)
        move = await Move.begin(cluster)
        with dropping(move.src, "parked", reply=False):
            await move.checkpoint()
            await move.src.stop()
        with pytest.raises(RefusedError, match=r"has not heard that the dump of migration .* succeeded"):
            await adopt(move, move.dst)

    play(scenario)


def test_what_cannot_be_adopted_is_refused_by_name(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        with pytest.raises(RefusedError, match=r"is src's own \(parked\): there is nothing to adopt"):
            await adopt(move, move.src, fenced="dst")
        await move.src.stop()
        with pytest.raises(RefusedError, match="dst is this host, and its agent answers"):
            await adopt(move, move.dst, fenced="dst")
        with pytest.raises(
            RefusedError, match="is src's to decide about, says its partner peer, not other's"
        ):
            await adopt(move, move.dst, fenced="other")
        whole: dict[str, Any] = move.document
        changes: dict[str, Any]
        for changes in ({"left_running": True}, {"partners": []}):
            members = {name: one for name, one in whole.items() if name not in ("version", "digest")}
            move.document = manifest.seal({**members, **changes})
            with pytest.raises(RefusedError, match=r"went on running|was made on src, .* not on other"):
                await adopt(move, move.dst, fenced="other")
        move.document = {**whole, "token": "0" * 64}
        with pytest.raises(ManifestError, match="digest does not fit"):
            await adopt(move, move.dst)

    play(scenario)


def test_only_who_has_the_checkpoint_may_adopt_it_and_as_itself(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster)
        third = await cluster.host("third", 5)
        migration = move.document["migration"]
        await move.src.stop()
        client = GrpcTransport(certificates.load(third.config.tls))
        try:
            request = {"migration": migration, "generation": 1, "fenced": "src"}
            for key, arbiter, why in (
                ("0" * 64, third, "is not the key of migration"),
                (tokens.key_for(move.document["token"], "peer"), move.dst, "third cannot speak as dst"),
            ):
                more = {"key": key, "arbiter": arbiter.agent.contact.as_message()}
                with pytest.raises(RefusedError, match=why):
                    await client.ask(move.peer.agent.contact.address, "adopt", {**request, **more}, 5)
            with pytest.raises(RefusedError, match="third is not the source of migration"):
                await client.ask(move.peer.agent.contact.address, "parked", {"migration": migration}, 5)
        finally:
            await client.close()
        move.document = await adopt(move, move.dst)
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)
