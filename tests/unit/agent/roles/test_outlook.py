"""Every state says in words what it is, whom it waits for and how a person ends it; and those ways do end it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import typer
from cluster import Cluster, Host, dropping
from guest_process import PATIENT_S
from moves import Move
from records import destination_data, partner_data, source_data

from migrrdma_runtime import cli
from migrrdma_runtime.agent.peers.agent_config import Deadlines
from migrrdma_runtime.agent.roles.outlook import describe
from migrrdma_runtime.agent.roles.records import AnyRecord, DestinationData, Record, SwitchedPartner
from migrrdma_runtime.agent.roles.states import FIRST, TRANSITIONS, Role, State, is_final
from migrrdma_runtime.base.errors import MigrRDMAError, RefusedError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

NEW: dict[Role, Callable[[], Any]] = {
    Role.SOURCE: source_data,
    Role.DESTINATION: destination_data,
    Role.PARTNER: partner_data,
}
STATES = [(role, state) for role, states in TRANSITIONS.items() for state in states]


def record(role: Role, state: State) -> AnyRecord:
    return Record("0" * 16, state, NEW[role]())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it


async def abandon(host: Host, move: Move, role: Role, *, lost: bool = False) -> str:
    def ask() -> str:
        with host.connect() as agent:
            return agent.abandon(move.document["migration"], lost=lost, role=role.value)

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(("role", "state"), STATES)
def test_every_state_has_words_and_every_one_that_lasts_a_way_out(role: Role, state: State) -> None:
    shown = describe(record(role, state), Deadlines())
    assert shown["meaning"]
    assert bool(shown["way_out"]) is not is_final(role, state)
    assert "{" not in shown["way_out"]
    if not is_final(role, state) and (role, state) != (Role.DESTINATION, State.COMMITTED):
        assert shown["waits_for"]


@pytest.mark.parametrize(("role", "state"), STATES)
def test_the_ways_out_are_commands_that_there_are(role: Role, state: State) -> None:
    way_out = describe(record(role, state), Deadlines())["way_out"]
    for words in re.findall(r"migrrdma ((?:migration|agent) [^;:,]*?) ?[0-9a-f]{16}", way_out):
        group, name, *options = words.split()
        command = typer.main.get_command(cli.app).commands[group].commands[name]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {one for one in options if one.startswith("-")} <= known


@pytest.mark.parametrize(
    ("role", "state"),
    [(Role.SOURCE, State.UNDONE), (Role.DESTINATION, State.DONE)],
    ids=lambda one: one.value,
)
def test_who_is_still_to_be_told_is_named(role: Role, state: State) -> None:
    one = record(role, state)
    one.data.pending = ["0" * 16]
    shown = describe(one, Deadlines())
    assert "0" * 16 in shown["waits_for"][0]
    assert "told again every 5 s" in shown["way_out"]


def test_a_destination_says_whether_it_waits_for_partners_for_processes_or_for_both() -> None:
    one = record(Role.DESTINATION, State.COMMITTED)
    assert isinstance(one.data, DestinationData)
    one.data.pending = ["0" * 16]
    one.data.partners = [SwitchedPartner("p1", "192.0.2.1:50505", "")]
    both = describe(one, Deadlines())["way_out"]
    assert "abandon --lost --role destination" in both
    assert "kill -CONT" in both
    one.data.partners[0].switched = True
    processes = describe(one, Deadlines())["way_out"]
    assert "abandon" not in processes
    assert "kill -CONT" in processes
    one.data.pending = []
    assert "kill -CONT" not in describe(one, Deadlines())["way_out"]


@pytest.mark.parametrize("role", Role)
def test_no_key_is_shown(role: Role) -> None:
    one = record(role, FIRST[role])
    secret = "5ec7e7" * 8
    for name in ("key_digest", "source_key", "attempt"):
        if hasattr(one.data, name):
            setattr(one.data, name, secret)
    assert secret not in str(describe(one, Deadlines()))


def test_a_partners_wait_is_given_up_backwards(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        assert await abandon(move.peer, move, Role.PARTNER) == "partner"
        await move.partner.until_asked("UNDO")
        assert move.peer.state() == {"partner": "lost"}
        with pytest.raises(RefusedError, match="is lost here: it waits for nobody"):
            await abandon(move.peer, move, Role.PARTNER)
        with pytest.raises(MigrRDMAError, match=r"has given migration .* up: given up by a person"):
            await move.restore()

    play(scenario)


def test_a_restore_in_doubt_is_given_up_and_can_be_tried_again(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.dst.kill_at = "destination: committed"
        restore = asyncio.ensure_future(move.restore())
        await move.dst.killed.wait()
        await move.src.stop()
        await move.dst.restart()
        assert move.dst.state() == {"destination": "committing"}
        assert await abandon(move.dst, move, Role.DESTINATION) == "destination"
        assert move.dst.state() == {"destination": "released"}
        with pytest.raises(MigrRDMAError):
            await restore
        await move.src.start()
        await until(lambda: move.src.state() == {"source": "parked"})
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_partner_that_is_lost_for_good_is_waited_for_no_more(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with dropping(move.dst, "switch", reply=False):
            await move.restore()
            shown = describe(move.dst.agent.store.every()[0], Deadlines())
            assert "partner peer to switch over" in shown["waits_for"]
            with pytest.raises(RefusedError, match="what is restored is not given up"):
                await abandon(move.dst, move, Role.DESTINATION)
            await abandon(move.dst, move, Role.DESTINATION, lost=True)
            await until(lambda: move.src.state() == {"source": "done"})

    play(scenario)


def test_a_restore_that_was_given_back_keeps_its_reason_and_its_timeline(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        with pytest.raises(MigrRDMAError):
            await move.restore(succeeded=False)
        shown = describe(move.dst.agent.store.every()[0], Deadlines())
        assert shown["state"] == "released"
        assert "could not be restored" in shown["reason"]
        assert [one["name"] for one in shown["timeline"]][-2:] == ["claim", "restore"]

    play(scenario)


@pytest.mark.parametrize("state", [State.PARKED, State.CLAIMED])
def test_of_a_move_it_is_said_that_it_goes_on_here_if_it_fails(state: State) -> None:
    data = replace(source_data(), move="0123456789abcdef", only_for="dst")
    shown = describe(Record("0" * 16, state, data), Deadlines())
    assert shown["meaning"] == "frozen, moves to another host"
    assert "migrrdma migration cancel 0123456789abcdef" in shown["way_out"]
    assert "dst" in "".join(shown["waits_for"]) or state is State.CLAIMED
    assert "abandon" not in shown["way_out"]
