"""How much the processes of one container may have their agent ask others."""

from __future__ import annotations

import asyncio

import pytest

from migrrdma_runtime.agent.local import asking
from migrrdma_runtime.agent.local.asking import Asking
from migrrdma_runtime.agent.peers.allowances import QUESTIONS
from migrrdma_runtime.base.allowed_rate import Rate
from migrrdma_runtime.base.errors import MessageError


def test_two_containers_that_ask_without_end_leave_something_for_the_others() -> None:
    assert 2 * asking.RATE.each_second < QUESTIONS.each_second
    assert 2 * asking.RATE.most <= QUESTIONS.most


def test_who_has_asked_for_too_much_waits_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "RATE", Rate(3, 1e-9))

    async def scenario() -> None:
        one, other = Asking(), Asking()
        assert [one.may_ask() for _ in range(4)] == [True, True, True, False]
        waits = asyncio.ensure_future(one.until_it_may())
        await other.until_it_may()
        assert not waits.done()
        waits.cancel()

    asyncio.run(scenario())


def test_no_more_are_kept_than_threads_could_reasonably_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_AWAITED", 2)

    async def scenario() -> None:
        one = Asking()
        one.began()
        one.began()
        with pytest.raises(MessageError, match="2 questions"):
            one.began()
        one.ended()
        one.began()

    asyncio.run(scenario())
