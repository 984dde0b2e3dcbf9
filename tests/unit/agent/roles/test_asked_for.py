"""What is being connected to, and for how long it holds that nothing moves, by a clock that goes when it is told."""

from __future__ import annotations

import asyncio

from migrrdma_runtime.agent.roles.asked_for import LEASE_S, AskedFor


def test_what_was_asked_for_a_moment_ago_is_being_connected() -> None:
    now = [100.0]
    asked = AskedFor(lambda: now[0])
    asked.note("gid", 7)
    assert asked.is_being_connected(["other", "gid"], 7)
    assert not asked.is_being_connected(["gid"], 8)
    assert not asked.is_being_connected(["other"], 7)
    assert not asked.is_being_connected([], 7)
    now[0] += 11
    assert not asked.is_being_connected(["gid"], 7)


def test_it_is_forgotten_when_there_is_more_than_can_be_kept() -> None:
    asked = AskedFor(lambda: 0.0)
    for number in range((1 << 16) + 1):
        asked.note("gid", number)
    assert not asked.is_being_connected(["gid"], 0)
    assert asked.is_being_connected(["gid"], 1)


def test_what_was_lent_is_waited_for_and_nothing_else() -> None:
    async def scenario() -> None:
        now = [0.0]

        def clock() -> float:
            now[0] += LEASE_S / 2  # each look takes so long
            return now[0]

        asked = AskedFor(clock)
        await asked.leases_end()
        assert now[0] == LEASE_S / 2
        asked.lend()
        lent = now[0]
        await asked.leases_end()
        assert now[0] >= lent + LEASE_S

    asyncio.run(scenario())


def test_whoever_asks_all_the_time_keeps_no_container_where_it_is() -> None:
    now = [100.0]
    asked = AskedFor(lambda: now[0])
    assert asked.has_patience("c1")
    now[0] += 29
    assert asked.has_patience("c1")
    now[0] += 1
    assert not asked.has_patience("c1")
    assert asked.has_patience("c2")
    now[0] += 90
    assert asked.has_patience("c1")
