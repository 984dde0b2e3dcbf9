"""Log lines: one for people, or one JSON object; neither can be forged by who chooses a name."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster
from moves import Move

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

SCRIPT = """
import logging, sys
from migrrdma_runtime.agent.observe import log_format
log_format.set_up("info", sys.argv[1])
log = logging.getLogger("migrrdma_runtime.agent.x")
log.info("process %s", "\\x1b[2J\\nERROR forged")
log.warning("migration %s is lost", "0123456789abcdef", extra={"role": "partner", "peers": ["src"]})
log.debug("not shown")
try:
    raise ValueError("\\x1b]0;title")
except ValueError:
    log.exception("failed")
"""


def lines(form: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, form], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stderr.splitlines()


def test_for_people_a_line_is_level_and_message() -> None:
    found = lines("text")
    assert found[:3] == [
        "INFO process \\x1b[2J\\nERROR forged",
        "WARNING migration 0123456789abcdef is lost",
        "ERROR failed",
    ]
    assert found[-1] == "ValueError: \\x1b]0;title"
    assert all(line.isprintable() for line in found)


def test_for_programs_it_is_one_object_with_the_migration() -> None:
    first, second, third = [json.loads(line) for line in lines("json")]
    assert first["message"] == "process \x1b[2J\nERROR forged"
    assert second | {"time": 0} == {
        "time": 0,
        "level": "warning",
        "logger": "agent.x",
        "message": "migration 0123456789abcdef is lost",
        "migration": "0123456789abcdef",
        "role": "partner",
        "peers": ["src"],
    }
    assert third["exception"].endswith("ValueError: \x1b]0;title")


def test_every_state_and_every_step_of_a_move_is_a_record(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "migrrdma_runtime.agent.observe.steps_log")

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)
    records = [one.__dict__ for one in caplog.records if one.name.endswith("steps_log")]
    assert len({one["migration"] for one in records}) == 1
    states = [(one["role"], one["state"]) for one in records if "step" not in one]
    assert states[:2] == [("source", "suspending"), ("partner", "suspended")]
    assert ("source", "committed") in states
    assert ("partner", "switched") in states
    steps = [(one["role"], one["step"]) for one in records if "step" in one]
    assert steps[:3] == [("source", "suspend"), ("source", "drain"), ("source", "dump")]
    assert ("destination", "rebuild") in steps
    assert all(
        one["peers"] == ["peer"] for one in records if one["role"] == "source" and one["state"] == "parked"
    )
