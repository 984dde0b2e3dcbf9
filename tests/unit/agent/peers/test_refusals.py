"""Who asks for what it does not get, without end, does not fill the log, nor keep others out of it."""

from __future__ import annotations

import logging

import pytest

from migrrdma_runtime.agent.peers import refusals
from migrrdma_runtime.agent.peers.refusals import Refusals
from migrrdma_runtime.base.errors import RefusedError

_MOST = int(refusals.LINES.most)


def test_each_agent_has_so_many_lines_and_is_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = Refusals(lambda: now)
    with caplog.at_level(logging.INFO):
        for number in range(10 * _MOST):
            log.say("evil", "claim", RefusedError(f"number {number}"))
        log.say("peer", "confirm", RefusedError("it has ended"))
        assert len(caplog.messages) == _MOST + 1
        assert caplog.messages[-1] == "confirm from peer refused: it has ended"
        now = 1 / refusals.LINES.each_second
        for _ in range(2):
            log.say("evil", "claim", RefusedError("again"))
        assert len(caplog.messages) == _MOST + 2
        assert (
            caplog.messages[-1]
            == f"claim from evil refused: again (and {9 * _MOST} more of its requests before)"
        )
        now *= 2
        log.say("evil", "claim", RefusedError("once more"))
        assert caplog.messages[-1] == "claim from evil refused: once more (and 1 more of its requests before)"
