"""A look that does not end delays its own container only, and is named."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from guest_process import PATIENT_S

from migrrdma_runtime.agent.local.looks import Looks
from migrrdma_runtime.base.errors import GuestError


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """What the looks that do not end wait for."""
    event = threading.Event()
    yield event
    event.set()


def test_what_it_sees_or_raises_is_the_callers() -> None:
    def fails() -> None:
        raise OSError("gone")

    async def run() -> None:
        looks = Looks()
        assert await looks.at("c1", lambda one, other: one + other, 1, 2) == 3
        with pytest.raises(OSError, match="gone"):
            await looks.at("c1", fails)
        assert await looks.at("c1", threading.current_thread) is not threading.main_thread()

    asyncio.run(run())


def test_one_that_does_not_end_is_given_up_and_its_container_named(let_go: threading.Event) -> None:
    async def run() -> None:
        looks = Looks(patience=0.01)
        for _ in range(2):  # the second one waits for the first
            with pytest.raises(
                GuestError, match=r"those of container 0123456789ab, has not ended in 0\.01 s"
            ):
                await looks.at("0123456789abcdef", let_go.wait)
        with pytest.raises(GuestError, match="this host's, has not ended"):
            await looks.at("", let_go.wait)

    asyncio.run(run())


def test_a_container_whose_looks_do_not_end_delays_no_other(let_go: threading.Event) -> None:
    """However often it is looked at: it has one thread."""

    async def run() -> None:
        looks = Looks(most_at_once=2, patience=PATIENT_S)
        stuck = [asyncio.ensure_future(looks.at("stuck", let_go.wait)) for _ in range(20)]
        assert await looks.at("other", lambda: "seen") == "seen"
        # Nor what else the agent does in threads.
        assert await asyncio.to_thread(lambda: "done") == "done"
        assert not any(one.done() for one in stuck)
        let_go.set()
        assert all(await asyncio.gather(*stuck))

    asyncio.run(run())


def test_no_more_than_so_many_are_under_way(let_go: threading.Event) -> None:
    begun: list[int] = []

    def look(number: int) -> None:
        begun.append(number)
        let_go.wait()

    async def run() -> None:
        looks = Looks(most_at_once=3, patience=PATIENT_S)
        asked = [asyncio.ensure_future(looks.at(f"c{one}", look, one)) for one in range(10)]
        while len(begun) < 3:
            await asyncio.sleep(0.001)
        for _ in range(100):  # of the loop's turns, in which the others might begin
            await asyncio.sleep(0)
        assert len(begun) == 3
        let_go.set()
        await asyncio.gather(*asked)
        assert sorted(begun) == list(range(10))

    asyncio.run(run())


def test_one_that_does_not_end_does_not_keep_the_agent_from_stopping() -> None:
    program = (
        "import asyncio, threading\n"
        "from migrrdma_runtime.agent.local.looks import Looks\n"
        "async def run():\n"
        "    begun = threading.Event()\n"
        "    def look():\n"
        "        begun.set()\n"
        "        threading.Event().wait()\n"
        "    looking = asyncio.ensure_future(Looks().at('c1', look))\n"
        "    await asyncio.to_thread(begun.wait)\n"
        "asyncio.run(run())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENT_S)
