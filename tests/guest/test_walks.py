"""Random walks: what moves answers as what does not (`tests/kit/guest_walk.py`)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from guest_agent import Agent
from guest_build import Built
from guest_shell import Shell
from guest_walk import Twice, Walk
from guest_walk_windows import WindowWalk

_STEPS = 300
_WALKS = 25


def _environment(given: dict[str, str]) -> dict[str, str]:
    # Posting executes: what a command has posted has completed when it answers.
    return {name: value for name, value in given.items() if name != "FAKE_ASYNC"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("variant", ["plain", pytest.param("address", marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", [Walk, WindowWalk], ids=["messages", "windows"])
@pytest.mark.parametrize(
    "seed",
    [*range(_WALKS), *(pytest.param(one, marks=pytest.mark.soak) for one in range(_WALKS, 25 * _WALKS))],
)
def test_what_moves_answers_as_what_does_not(
    states: Path, builds: Callable[[str], Built], agent: Agent, tmp_path: Path,
    kind: type[Walk], variant: str, seed: int,
) -> None:  # fmt: skip
    chance = random.Random(seed)  # noqa: S311 - the same every time
    built = builds(variant)
    bare = Shell(states, _environment({**builds("plain").without, "LD_PRELOAD": ""}), tmp_path / "bare")
    moved = Shell(states, _environment({**built.environment, **agent.environment}), tmp_path / "moved")
    agent.diagnosis = moved.diagnosis
    with bare, moved:
        agent.accept()
        twice = Twice(bare, moved)
        walk = kind(twice, agent, chance, shared=chance.choice((0, 16)), stops=chance.random() < 0.5)
        try:
            walk.begin()
            for _ in range(_STEPS):
                walk.step()
            walk.end()
        except BaseException as error:
            error.add_note("\n".join(twice.told))
            raise
