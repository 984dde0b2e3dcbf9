"""Messages from guests to a real agent: each is taken, or the guest is hung up on and the agent goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from changing_guest import ChangingGuest
from cluster import Cluster
from complaints import unexpected_errors
from fuzzing import Fuzzer

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Connect, GidChange, QPName
from migrrdma_runtime.agent.roles.participants import look_into, require_memory, require_movable
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.agent.roles.whereabouts import Whereabouts
from migrrdma_runtime.base import gids, paths
from migrrdma_runtime.base.errors import MigrRDMAError, UnreachableError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_ANSWER_S = 0.2
"""What waits longer has been answered by a part of something."""


def _pair(number: int, gid: str) -> dict[str, Any]:
    here = gids.packed(gid)
    return {
        "context": 1,
        "vqpn": number,
        "pqpn": number,
        "type": 2,
        "state": 3,
        "port": 1,
        "sgid_index": 1,
        "dest_vqpn": number,
        "dest_pqpn": number,
        "sgid": here,
        "dgid": here,
        "next_pqpn": number + 1,
    }


async def _look(agent: ThisAgent, guest: Guest) -> None:
    mover = await look_into(agent, guest)
    require_movable("c1", [mover])
    await require_memory(agent, [mover])


async def _restore(guest: Guest) -> None:
    pairs = await guest.rebuild(1, "rxe0", [GidChange(1, 1, 1, 1)], _ANSWER_S)
    await guest.connect([Connect(one.name, 1, one.dgid, 1, 1, "0" * 16) for one in pairs], _ANSWER_S)
    await guest.remote_numbers(_ANSWER_S)
    await guest.learn_keys("0" * 16, [(1, 2)], _ANSWER_S, srqs=True)
    await guest.learn_keys("0" * 16, [(1, 2)], _ANSWER_S)
    await guest.resume(_ANSWER_S)


async def _take_part(guest: Guest) -> None:
    names = [QPName(1, 17), QPName(1, 18)]
    await guest.quiesce(names, _ANSWER_S, _ANSWER_S, 1)
    await guest.prepare(names, _ANSWER_S)
    await guest.undo(_ANSWER_S)


async def _leave(guest: Guest) -> None:
    await guest.park(_ANSWER_S)
    await guest.hang_up(_ANSWER_S)


async def _be_found(guest: Guest) -> None:
    await guest.find("::", 17, _ANSWER_S)


async def _is_nobody(_whereabouts: Whereabouts, _guest: Guest, home: str) -> None:
    raise UnreachableError(f"{home}: what comes of a change is no address to send anything to")


def test_no_message_of_a_guest_is_more_than_the_end_of_its_connection(
    fuzzer: Fuzzer, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Whereabouts, "_require_somebody", _is_nobody)

    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=_ANSWER_S)
        cluster.late_comers = True
        host = await cluster.host("src", 2)
        host.containers.members[os.getpid()] = "c1"
        agent = host.agent
        # A socket of its own, at which who comes too often waits; at the host's it would be refused.
        own = host.config.run_dir / paths.CONTAINERS_DIR / "c1" / paths.GUEST_SOCKET_DIR
        own.mkdir(parents=True)
        agent.guests.listen_in("c1")
        pairs = [_pair(number, host.gid) for number in (17, 18)]
        done = 0

        async def one(rng: random.Random) -> None:
            nonlocal done
            fake = ChangingGuest(
                rng, own / paths.GUEST_SOCKET, f"{rng.getrandbits(64):016x}", pairs, changes=0.3
            )
            try:
                if await fake.connect(rng.choice((1, 3, 4)), changes=0.2):
                    [guest] = agent.guests.of_container("c1")
                    await fake.ask(rng.randrange(3))
                    with contextlib.suppress(MigrRDMAError):
                        await rng.choice(
                            (lambda g: _look(agent, g), _restore, _take_part, _leave, _be_found)
                        )(guest)
                        done += 1
            finally:
                await fake.close()
            while agent.guests.of_container("c1"):
                await asyncio.sleep(0)
            assert errors == [], errors[0]

        with unexpected_errors() as errors:
            await fuzzer.arun(one)
        assert done > fuzzer.rounds / 20, "most were refused: nothing was shown"

    play(scenario)
