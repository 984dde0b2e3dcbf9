"""Where a queue pair is that an application names, after its process has moved; and who is told so."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cluster import Cluster, Host, ends, hexadecimal
from guest_process import PATIENT_S, GuestProcess
from moves import Move

from migrrdma_runtime.agent.local import guests as guests_module
from migrrdma_runtime.agent.roles import whereabouts
from migrrdma_runtime.agent.roles.asked_for import AskedFor
from migrrdma_runtime.agent.roles.records import SourceData
from migrrdma_runtime.base.errors import BusyError, RefusedError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_INIT, _RTS = 1, 3


@pytest.fixture(autouse=True)
def _nobody_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(whereabouts, "_LATE_S", float("inf"))


_OFFERED = 0x51
"""A queue pair that the mover has told others of, and that is connected to nobody yet."""
_OF_THE_LIAR = 0x99


@dataclass
class _Scene:
    """A container that has moved or is about to, and somebody who wants to be connected to it."""

    move: Move
    asker: GuestProcess

    @classmethod
    async def make(cls, cluster: Cluster, *, wanted: bool = True, **offered: Any) -> _Scene:
        cluster.late_comers = wanted
        src, dst, peer = [
            await cluster.host(name, number) for number, name in enumerate(("src", "dst", "peer"), 2)
        ]
        offer = {**ends(src, _OFFERED, peer, 0, 1)[0], "state": _INIT, **offered}
        mover = await cluster.guest(src, "c1", "a" * 16, [*ends(src, 0x11, peer, 0x21, 1), offer])
        partner = await cluster.guest(peer, "p1", "b" * 16, ends(peer, 0x21, src, 0x11, 1))
        asker = await cluster.guest(
            peer, "p2", "c" * 16, [{**ends(peer, 0x71, src, 0, 1)[0], "state": _INIT}]
        )
        move = Move(cluster, src, dst, peer, mover, partner)
        move.restored_spec = {"known": {hexadecimal(src.gid): hexadecimal(dst.gid)}}
        return cls(move, asker)

    async def claim(self, qpn: int, container: str = "c9") -> GuestProcess:
        """A process at home that says that a queue pair of its own is called so."""
        src = self.move.src
        pair = {**ends(src, qpn, src, 0, 1)[0], "pqpn": _OF_THE_LIAR, "state": _INIT}
        liar = await self.move.cluster.guest(src, container, "d" * 16, [pair], differs=1)
        kernels = src.resources.pairs = src.resources.pairs or []
        kernels.append(
            {"ifname": "rxe0", "lqpn": _OF_THE_LIAR, "type": "RC", "pid": liar.pid, "comm": "liar"}
        )
        return liar

    async def go(self) -> None:
        await self.move.checkpoint()
        await self.move.restore()

    async def ask(self, qpn: int = _OFFERED, **more: Any) -> Any:
        return await self.asker.ask(
            hexadecimal(self.move.src.gid), qpn, hexadecimal(self.move.peer.gid), 0x71, **more
        )


def _place(there: Any) -> tuple[str, int]:
    assert there["error"] == 0, there
    return there["gid"], there["qpn"]


def _at(host: Host, qpn: int) -> tuple[str, int]:
    return hexadecimal(host.gid), qpn


def test_who_has_not_moved_is_where_it_says_and_is_not_asked(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        assert _place(await scene.ask()) == _at(scene.move.src, _OFFERED)
        assert scene.move.mover.asked == []

    play(scenario)


def test_who_has_moved_is_found_with_its_keys(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        scene.move.restored_spec |= {
            "mrs": [{"context": 1, "vrkey": 0x900, "prkey": 0x911, "access": 4}],
        }
        await scene.go()
        there = await scene.ask()
        assert _place(there) == _at(scene.move.dst, _OFFERED + 0x3000)
        assert [0x900, 0x911] in there["keys"]

    play(scenario)


def test_also_after_all_agents_were_restarted(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        for host in (scene.move.src, scene.move.dst):
            await host.restart()
        assert scene.move.restored is not None
        await scene.move.dst.agent.guests.have_pids({scene.move.restored.pid})
        assert _place(await scene.ask()) == _at(scene.move.dst, _OFFERED + 0x3000)

    play(scenario)


def test_one_that_faces_another_is_not_meant_and_its_keys_are_not_told(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        there = await scene.ask(0x11)
        assert _place(there) == _at(scene.move.src, 0x11)
        assert there["keys"] == []

    play(scenario)


def test_one_that_faces_the_asker_is_meant(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        there = await scene.asker.ask(
            hexadecimal(scene.move.src.gid), 0x11, hexadecimal(scene.move.peer.gid), 0x71, 0x21 + 0x7000
        )
        assert _place(there) == _at(scene.move.dst, 0x11 + 0x3000)

    play(scenario)


def test_a_process_of_another_container_cannot_say_that_it_is_meant(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        thief = await cluster.guest(
            scene.move.dst,
            "c9",
            "d" * 16,
            [{**ends(scene.move.dst, 0x99, scene.move.peer, 0, 1)[0], "state": _INIT}],
            known={hexadecimal(scene.move.src.gid): hexadecimal(scene.move.dst.gid)},
        )
        assert _place(await scene.ask(0x99)) == _at(scene.move.src, 0x99)
        assert "FIND" not in thief.asked

    play(scenario)


def test_while_it_is_away_the_asker_is_to_ask_again(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.move.checkpoint()
        there = await scene.ask()
        assert there["error"] == errno.EAGAIN
        assert scene.move.document["migration"] in there["text"]
        await scene.move.restore()
        assert _place(await scene.ask()) == _at(scene.move.dst, _OFFERED + 0x3000)

    play(scenario)


def test_also_if_it_was_made_when_its_move_had_begun(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own word then, and by the kernel's while it is dumped: nobody else is meant."""

    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        src, mover = scene.move.src, scene.move.mover
        made = {"ifname": "rxe0", "type": "RC", "pid": mover.pid, "comm": "mover"}
        heard: list[Any] = []
        end = mover.kill

        async def asked_for_and_ended() -> None:
            [record] = src.agent.store.all(SourceData)
            record.data.qpns, record.data.unproven = {mover.name: [0x11]}, {mover.name: [_OFFERED]}
            src.resources.pairs = [made | {"lqpn": 0x11}, made | {"lqpn": _OFFERED}]
            heard.append(await scene.ask())
            src.resources.pairs = None
            await end()

        monkeypatch.setattr(mover, "kill", asked_for_and_ended)
        await scene.move.checkpoint()
        [there] = heard
        assert there["error"] == errno.EAGAIN
        assert scene.move.document["migration"] in there["text"]

    play(scenario)


def test_what_is_being_connected_to_is_not_moved_before_it_is(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        scene.move.src.agent.asked_for = AskedFor(lambda: 0.0)  # no time passes, however busy the machine is
        await scene.ask()
        try:
            await scene.move.checkpoint()
        except BusyError as error:
            assert f"0x{_OFFERED:x}" in str(error)
        else:
            raise AssertionError("it was moved while it was being connected to")
        assert "QUIESCE" not in scene.move.mover.asked

    play(scenario)


def test_the_home_is_told_where_it_has_gone_on_to(play: Play) -> None:
    """So it is found although the host between is gone."""

    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        third = await cluster.host("third", 6)
        onward = scene.move.onward(third)
        onward.restored_spec = {"known": {hexadecimal(scene.move.src.gid): hexadecimal(third.gid)}}
        await onward.checkpoint()
        await onward.restore()
        home = scene.move.src.agent.store.names
        there = await scene.ask()
        assert _place(there) == _at(third, _OFFERED + 0x6000)
        while {one.agent for one in home.known_as(scene.move.src.gid)} != {"third"}:
            there = await scene.ask()  # the telling goes on beside the move
        await scene.move.dst.stop()
        assert _place(await scene.ask()) == _at(third, _OFFERED + 0x6000)

    play(scenario)


def test_back_at_home_under_other_numbers(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        back = scene.move.onward(scene.move.src)
        back.restored_spec = {"known": {hexadecimal(scene.move.src.gid): hexadecimal(scene.move.src.gid)}}
        await back.checkpoint()
        await back.restore()
        assert _place(await scene.ask()) == _at(scene.move.src, _OFFERED + 0x6000)

    play(scenario)


def test_without_an_agent_there_the_name_stands_for_itself(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        nobody = cluster.prepare("nobody", 9)
        there = await scene.asker.ask(hexadecimal(nobody.gid), 0x31, hexadecimal(scene.move.peer.gid), 0x71)
        assert _place(there) == _at(nobody, 0x31)

    play(scenario)


def test_who_has_moved_is_refused_where_nobody_could_tell_the_other_end(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        nobody = cluster.prepare("nobody", 9)
        await scene.go()
        assert scene.move.restored is not None
        there = await scene.move.restored.ask(
            hexadecimal(nobody.gid),
            0x31,
            hexadecimal(scene.move.src.gid),
            _OFFERED,
            _OFFERED + 0x3000,
            hexadecimal(scene.move.dst.gid),
        )
        assert there["error"] == errno.EHOSTUNREACH
        assert nobody.address in there["text"]

    play(scenario)


def test_a_home_that_somebody_has_left_must_answer(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        await scene.ask()
        await scene.move.src.stop()
        there = await scene.ask()
        assert there["error"] == errno.EHOSTUNREACH
        assert scene.move.src.address in there["text"]

    play(scenario)


def test_of_two_that_are_called_so_neither_is_chosen(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        scene.move.src.resources.pairs = [
            {"ifname": "rxe0", "lqpn": _OFFERED, "type": "RC", "pid": 1, "comm": "other"}
        ]
        there = await scene.ask()
        assert there["error"] == errno.EHOSTUNREACH
        assert "2 processes" in there["text"]
        # One that faces somebody else is not meant.
        scene.move.src.resources.pairs[0]["rqpn"] = 0x333
        assert _place(await scene.ask()) == _at(scene.move.dst, _OFFERED + 0x3000)

    play(scenario)


def test_a_move_that_is_undone_leaves_it_where_it_was(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.move.checkpoint(succeeded=False)
        assert _place(await scene.ask()) == _at(scene.move.src, _OFFERED)

    play(scenario)


def test_an_agent_that_says_somebody_is_at_a_host_of_others_is_not_believed(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        victim = await cluster.host("victim", 7)
        await scene.go()
        there = scene.move.dst.agent.handlers["where"].__self__  # type: ignore[attr-defined]
        tell = there._describe

        async def lie(*about: Any) -> Any:
            return await tell(*about) | {"gid": victim.gid}

        monkeypatch.setattr(there, "_describe", lie)
        answer = await scene.ask()
        assert answer["error"] == errno.EHOSTUNREACH
        assert "agent dst says" in answer["text"]
        assert "victim" in answer["text"]

    play(scenario)


def test_a_silent_process_that_says_it_may_be_meant_keeps_nobody_waiting_for_long(play: Play) -> None:
    """It is asked once, and the others of its host are connected to as ever."""

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=0.2)
        scene = await _Scene.make(cluster)
        src = scene.move.src
        liar = await cluster.guest(
            src, "c9", "d" * 16, [{**ends(src, 0x99, src, 0, 1)[0], "state": _INIT}], differs=1
        )
        await liar.tell("fault FIND silent")
        for _ in range(3):
            assert _place(await scene.ask(0x77)) == _at(src, 0x77)
        assert liar.asked.count("FIND") == 1

    play(scenario)


def test_where_it_is_not_wanted_nothing_is_asked_told_or_kept(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster, wanted=False)
        await scene.go()
        there = scene.move.src.agent.contact
        question = {
            "asker": scene.move.peer.agent.contact.as_message(),
            "gid": scene.move.src.gid,
            "qpn": _OFFERED,
            "from_gid": scene.move.peer.gid,
            "from_qpn": 0x71,
        }
        with pytest.raises(RefusedError, match="late_comers"):
            await scene.move.peer.agent.transport.ask(there.address, "where", question, PATIENT_S, there.name)
        guests = scene.move.document["guests"]
        assert [one["names"] for one in guests] == [[]]
        assert all(gid["used"] for one in guests for context in one["contexts"] for gid in context["gids"])
        assert scene.move.src.agent.store.names.known_as(scene.move.src.gid) == []
        # And who asks all the same is hung up on.
        await scene.asker.tell(f"ask {hexadecimal(scene.move.src.gid)} 1 {'0' * 32} 1 {'0' * 32} 1")
        await scene.asker.until(lambda: scene.asker.events.count({"welcome": True}) == 2)

    play(scenario)


def test_one_that_cannot_say_just_now_is_asked_again(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(ask=10)  # however long the first answer takes
        scene = await _Scene.make(cluster)
        await scene.go()
        assert scene.move.restored is not None
        await scene.move.restored.tell("fault FIND a verb took too long to return")
        assert _place(await scene.ask()) == _at(scene.move.dst, _OFFERED + 0x3000)

    play(scenario)


@pytest.mark.parametrize("known", [True, False])
def test_a_process_that_says_it_is_called_as_another_one_keeps_nobody_from_that(
    play: Play, known: bool
) -> None:
    """Also where the kernel does not say whose the other one's is, because the thread that made it has ended."""

    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.claim(0x77)
        other: dict[str, Any] = {"ifname": "rxe0", "lqpn": 0x77, "type": "RC"}
        src = scene.move.src.resources
        assert src.pairs is not None
        src.pairs.append(other | {"pid": 1, "comm": "other"} if known else other)
        assert _place(await scene.ask(0x77)) == _at(scene.move.src, 0x77)
        # Where nobody else is meant, its word counts.
        src.pairs.remove(src.pairs[-1])
        assert _place(await scene.ask(0x77)) == _at(scene.move.src, _OF_THE_LIAR)

    play(scenario)


def test_nor_from_one_that_has_moved_or_is_away(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.move.checkpoint()
        await scene.claim(_OFFERED)
        assert (await scene.ask())["error"] == errno.EAGAIN
        await scene.move.restore()
        assert _place(await scene.ask()) == _at(scene.move.dst, _OFFERED + 0x3000)
        await scene.move.dst.stop()  # nor while that cannot be asked
        assert (await scene.ask())["error"] == errno.EHOSTUNREACH

    play(scenario)


def test_nor_by_being_moved_itself(play: Play) -> None:
    """What it says of its numbers is not taken along as if it were known."""

    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        liar = await scene.claim(0x77)
        move = Move(cluster, scene.move.src, scene.move.dst, scene.move.peer, liar, liar, container="c9")
        move.lands_in = "c9+"
        await move.checkpoint()
        [record] = scene.move.src.agent.store.all(SourceData)
        assert record.data.qpns == {liar.name: []}
        assert record.data.unproven == {liar.name: [0x77]}
        assert [one["qpns"] for one in move.document["guests"]] == [[]]

    play(scenario)


def test_numbers_are_known_again_after_a_second_move(play: Play) -> None:
    """Of what had them before the first: the kernel has others by then, and its agents know them."""

    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        third = await cluster.host("third", 6)
        onward = scene.move.onward(third)
        onward.restored_spec = {"known": {hexadecimal(scene.move.src.gid): hexadecimal(third.gid)}}
        await onward.checkpoint()
        assert [one["qpns"] for one in onward.document["guests"]] == [[0x11, _OFFERED]]
        await onward.restore()
        assert third.agent.store.names.numbers_of(onward.lands_in, scene.move.mover.name) == {0x11, _OFFERED}
        await scene.claim(_OFFERED)
        assert _place(await scene.ask()) == _at(third, _OFFERED + 0x6000)

    play(scenario)


def test_another_container_with_a_process_of_that_name_that_goes_elsewhere_takes_nothing_along(
    play: Play,
) -> None:
    """Names hold within a container, and whoever has faced a process knows its."""

    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        src, peer, third = scene.move.src, scene.move.peer, await cluster.host("third", 6)
        thief = await cluster.guest(src, "c8", scene.move.mover.name, ends(src, 0x61, peer, 0x81, 1))
        partner = await cluster.guest(peer, "p8", "e" * 16, ends(peer, 0x81, src, 0x61, 1))
        other = Move(cluster, src, third, peer, thief, partner, container="c8", lands_in="c8+")
        await other.checkpoint()
        await other.restore()
        there = {one.agent for one in src.agent.store.names.known_as(src.gid)}
        assert there == {scene.move.dst.name, third.name}
        assert _place(await scene.ask()) == _at(scene.move.dst, _OFFERED + 0x3000)

    play(scenario)


def test_what_is_back_at_home_is_not_looked_for_where_it_was(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        await scene.go()
        src = scene.move.src
        back = scene.move.onward(src)
        await back.checkpoint()
        await back.restore()
        await src.restart()  # on its disk as well
        [known] = src.agent.store.names.known_as(src.gid)
        assert known.is_here
        assert known.container == back.lands_in

    play(scenario)


def test_one_users_process_that_says_nothing_keeps_nobody_from_another_users(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of containers they have nothing in common."""

    async def scenario(cluster: Cluster) -> None:
        scene = await _Scene.make(cluster)
        src = scene.move.src
        monkeypatch.setattr(guests_module, "peer_user", lambda _connection: 1001)
        unhelpful = await cluster.guest(
            src, "", "d" * 16, [{**ends(src, 0x99, src, 0, 1)[0], "state": _INIT}], differs=1
        )
        await unhelpful.tell("fault FIND it does not say")
        assert _place(await scene.ask(0x77)) == _at(src, 0x77)
        monkeypatch.setattr(guests_module, "peer_user", lambda _connection: 1002)
        pair = {**ends(src, 0x77, src, 0, 1)[0], "pqpn": 0x88, "state": _INIT}
        await cluster.guest(src, "", "e" * 16, [pair], differs=1)
        assert _place(await scene.ask(0x77)) == _at(src, 0x88)
        assert unhelpful.asked.count("FIND") == 1

    play(scenario)


def test_one_that_only_says_that_it_may_be_meant_and_takes_its_time_is_asked_once(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        monkeypatch.setattr(whereabouts, "_LATE_S", -1.0)
        scene = await _Scene.make(cluster)
        slow = await scene.claim(0x77)
        for _ in range(3):
            await scene.ask(0x77)
        assert slow.asked.count("FIND") == 1

    play(scenario)


def test_one_that_has_come_from_there_and_says_nothing_keeps_nobody_from_another(play: Play) -> None:
    """Both are known by that GID, so both are asked."""

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=1)
        scene = await _Scene.make(cluster)
        move = scene.move
        pairs = ends(move.src, 0x15, move.peer, 0x25, 1)
        silent = await cluster.guest(move.src, "c7", "e" * 16, pairs)
        partner = await cluster.guest(move.peer, "p7", "f" * 16, ends(move.peer, 0x25, move.src, 0x15, 1))
        other = Move(cluster, move.src, move.dst, move.peer, silent, partner, container="c7")
        other.image, other.lands_in, other.restored_spec = pairs, "c7+", move.restored_spec
        for one in (move, other):
            await one.checkpoint()
            await one.restore()
        assert other.restored is not None
        await other.restored.tell("fault FIND silent")
        assert _place(await scene.ask()) == _at(move.dst, _OFFERED + 0x3000)
        assert "FIND" in other.restored.asked

    play(scenario)


@pytest.mark.parametrize("fault", ["silent", "of its own secrets"])
def test_who_asks_hears_nothing_of_the_processes_there(play: Play, fault: str) -> None:
    """They are strangers' on another host: what they are called is for the logs of the hosts."""

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=0.3, ask=0)
        scene = await _Scene.make(cluster)
        await scene.go()
        assert scene.move.restored is not None
        await scene.move.restored.tell(f"fault FIND {fault}")
        there = await scene.ask()
        assert there["error"] == errno.EAGAIN
        for word in ("python", "container", str(scene.move.restored.pid), "secret"):
            assert word not in there["text"], there["text"]

    play(scenario)
