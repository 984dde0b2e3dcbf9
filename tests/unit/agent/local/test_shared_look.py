"""Who asks for the same look at one time shares it, and sees nothing older than what was asked."""

from __future__ import annotations

import asyncio

import pytest

from migrrdma_runtime.agent.local.shared_look import SharedLook


class _Clock:
    """What is looked at: it is later with each look, and a look takes until the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = asyncio.Event()

    async def look(self) -> int:
        self.begun += 1
        seen = self.begun
        await self.end.wait()
        return seen


async def _pause() -> None:
    """Let everything come as far as it comes by itself."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_hundred_who_ask_while_somebody_looks_share_the_next_look() -> None:
    async def scenario() -> None:
        clock = _Clock()
        shared = SharedLook(clock.look)
        first = asyncio.ensure_future(shared())
        await _pause()
        others = [asyncio.ensure_future(shared()) for _ in range(100)]
        await _pause()
        assert clock.begun == 1
        clock.end.set()
        # What was under way when they asked is too old for them.
        assert (await first, set(await asyncio.gather(*others))) == (1, {2})
        assert await shared() == 3

    asyncio.run(scenario())


def test_one_that_gives_up_takes_it_from_nobody() -> None:
    async def scenario() -> None:
        clock = _Clock()
        shared = SharedLook(clock.look)
        impatient, patient = (asyncio.ensure_future(shared()) for _ in range(2))
        await _pause()
        impatient.cancel()
        await _pause()
        clock.end.set()
        assert await patient == 1

    asyncio.run(scenario())


def test_an_error_is_everybodys_and_the_next_look_is_made() -> None:
    async def scenario() -> None:
        looks = 0

        async def look() -> int:
            nonlocal looks
            looks += 1
            if looks == 1:
                raise ValueError("broken")
            return looks

        shared = SharedLook(look)
        failed = await asyncio.gather(shared(), shared(), return_exceptions=True)
        assert [str(one) for one in failed] == ["broken", "broken"]
        assert await shared() == 2

    asyncio.run(scenario())


def test_it_may_be_used_by_one_loop_after_another() -> None:
    async def look() -> int:
        return 1

    shared = SharedLook(look)
    for _ in range(2):
        assert asyncio.run(shared()) == 1


@pytest.mark.parametrize("count", [1, 100])
def test_it_costs_two_looks_however_many_ask(count: int) -> None:
    async def scenario() -> None:
        clock = _Clock()
        shared = SharedLook(clock.look)
        clock.end.set()
        await asyncio.gather(*(shared() for _ in range(count)))
        await asyncio.gather(*(shared() for _ in range(count)))
        assert clock.begun == 2

    asyncio.run(scenario())
