"""Which keys the other ends are told, and what becomes of a number that they were not told."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest

from migrrdma_runtime.agent.local.usable_keys import NO_KEY, NO_SRQ, by_domain, srqs_by_domain

READ, WRITE, ATOMIC, FLUSH = 4, 2, 8, 512
LOCAL = 1 | 16


def region(vrkey: int, prkey: int, pd: int = 1, access: int = WRITE, context: int = 1) -> dict[str, Any]:
    return {"context": context, "pd": pd, "access": access, "vrkey": vrkey, "prkey": prkey, "kind": 0}


def queue(vsrqn: int, psrqn: int, domain: int = 3, context: int = 1) -> dict[str, Any]:
    """A shared receive queue of an XRC domain."""
    return {"context": context, "pd": domain, "access": 0, "vrkey": vsrqn, "prkey": psrqn, "kind": 1}


def test_the_keys_of_another_protection_domain_are_not_told() -> None:
    regions = [region(0x10, 0x20, pd=1), region(0x11, 0x21, pd=2), region(0x12, 0x22, pd=1)]
    assert by_domain(regions) == {(1, 1): [(0x10, 0x20), (0x12, 0x22)], (1, 2): [(0x11, 0x21)]}


def test_domains_of_two_contexts_are_two() -> None:
    regions = [region(0x10, 0x20), region(0x10, 0x30, context=2)]
    assert by_domain(regions) == {(1, 1): [(0x10, 0x20)], (2, 1): [(0x10, 0x30)]}


@pytest.mark.parametrize("access", [READ, WRITE, ATOMIC, FLUSH, READ | WRITE | ATOMIC | LOCAL])
def test_a_region_with_any_right_for_others_is_told(access: int) -> None:
    assert by_domain([region(0x10, 0x20, access=access)]) == {(1, 1): [(0x10, 0x20)]}


@pytest.mark.parametrize("access", [0, LOCAL])
def test_a_region_for_local_use_only_is_not_told(access: int) -> None:
    assert by_domain([region(0x10, 0x20, access=access)]) == {}


@pytest.mark.parametrize("other", [{"pd": 2}, {"access": LOCAL}], ids=["another domain", "local only"])
def test_a_number_that_was_not_told_reaches_no_region_that_has_it_now(other: dict[str, int]) -> None:
    """The new device has given 0x10, by which an end could reach nothing before, to what it may reach as 0x11."""
    told = by_domain([region(0x10, 0x50, **other), region(0x11, 0x10)])[1, 1]
    assert told == [(0x11, 0x10), (0x10, NO_KEY)]


def test_a_number_that_was_told_means_what_it_meant() -> None:
    """Two regions that have exchanged their numbers: nothing is in the way."""
    assert by_domain([region(0x10, 0x11), region(0x11, 0x10)]) == {(1, 1): [(0x10, 0x11), (0x11, 0x10)]}


def test_numbers_of_shared_receive_queues_and_keys_are_two_name_spaces() -> None:
    records = [
        region(0x10, 0x20, pd=3),
        queue(0x20, 0x10),
        queue(0x21, 0x30, domain=4),
        queue(0x20, 0x40, context=2),
    ]
    assert by_domain(records) == {(1, 3): [(0x10, 0x20)]}
    assert srqs_by_domain(records) == {
        (1, 3): [(0x20, 0x10), (0x10, NO_SRQ)],
        (1, 4): [(0x21, 0x30), (0x30, NO_SRQ)],
        (2, 3): [(0x20, 0x40), (0x40, NO_SRQ)],
    }


def test_queues_that_have_exchanged_their_numbers_keep_both() -> None:
    assert srqs_by_domain([queue(1, 2), queue(2, 1)]) == {(1, 3): [(1, 2), (2, 1)]}


def test_a_number_of_another_context_is_another_number() -> None:
    told = by_domain([region(0x10, 0x50, context=2), region(0x11, 0x10)])
    assert told[1, 1] == [(0x11, 0x10)]


def test_whatever_the_new_device_gives_every_number_fails_or_means_what_it_meant() -> None:
    """As an application sees it: by each number of the old host, in each domain, the same region as before, or none."""
    for seed in range(300):
        chance = random.Random(seed)  # noqa: S311 - the same every time
        numbers = range(1, 9)
        old, new = (chance.sample(numbers, 6) for _ in range(2))
        regions = [
            region(vrkey, prkey, pd=chance.randint(1, 2), access=chance.choice([0, LOCAL, READ, WRITE]))
            for vrkey, prkey in zip(old, new, strict=True)
        ]
        told = by_domain(regions)
        for pd, number in itertools.product((1, 2), old):
            sent = dict(told.get((1, pd), [])).get(number, number)
            before = _reached(regions, "vrkey", number, pd)
            assert _reached(regions, "prkey", sent, pd) == before, (seed, pd, number)


def _reached(regions: list[dict[str, Any]], key: str, number: int, pd: int) -> list[int]:
    """Which region a device lets a queue pair of that domain reach by that number: its address, so to say."""
    return [
        index
        for index, one in enumerate(regions)
        if one[key] == number and one["pd"] == pd and one["access"] & (READ | WRITE | ATOMIC)
    ]


def test_a_domain_for_every_key_costs_no_more_than_one_for_all() -> None:
    """A process may have 262,144 of either: their product would keep the agent for hours."""

    def seconds(domains: int) -> float:
        regions = [region(0x10000 + key, 0x90000 + key, pd=key % domains) for key in range(1 << 15)]
        began = time.thread_time()
        by_domain(regions)
        return time.thread_time() - began

    one, many = (min(seconds(domains) for _ in range(2)) for domains in (1, 1 << 11))
    assert many < 20 * one, f"{many:.3f} s instead of {one:.3f} s"
