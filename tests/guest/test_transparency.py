"""What an application could notice of the library, and does not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import Built, compile_c
from guest_moves import move_alone


def quiet(built: Built) -> dict[str, str]:
    """The environment, with a fake device that has no thread of its own."""
    return {name: value for name, value in built.environment.items() if name != "FAKE_ASYNC"}


@pytest.fixture
def neat(built: Built, agent: Agent, tmp_path: Path) -> Iterator[Program]:
    compile_c(tmp_path / "neat", Path(__file__).with_name("neat.c"), "-libverbs", "-pthread")
    with Program([tmp_path / "neat"], quiet(built) | agent.environment, tmp_path / "log") as program:
        agent.diagnosis = program.diagnosis
        yield program


def threads(pid: int) -> list[str]:
    return sorted(p.read_text().strip() for p in Path(f"/proc/{pid}/task").glob("*/comm"))


def test_errno_signals_threads_and_descriptors_stay_as_they_were(neat: Program, agent: Agent) -> None:
    pid = neat.process.pid
    assert threads(pid) == ["neat"]
    for turn in range(3):
        assert neat.tell("open") == "ok"
        if not turn:
            agent.accept()
        assert threads(pid) == ["migrrdma", "neat"]
        for _ in range(5):
            assert neat.tell("use") == "ok"
            move_alone(agent)
            assert neat.tell("use") == "ok"
        assert neat.tell("close") == "ok"
        # The one connection to the agent.
        assert neat.tell("descriptors") == "1"
    assert neat.log.with_suffix(".stderr").read_bytes() == b""


def test_hundreds_of_threads_come_and_go(neat: Program, agent: Agent) -> None:
    assert neat.tell("open") == "ok"
    agent.accept()
    for _ in range(3):
        assert neat.tell("crowd 300") == "ok"
        agent.quiesce()
        agent.resume()
    assert threads(neat.process.pid) == ["migrrdma", "neat"]
    assert neat.tell("close") == "ok"


def test_processes_have_guests_of_their_own(built: Built, tmp_path: Path) -> None:
    compile_c(tmp_path / "neat", Path(__file__).with_name("neat.c"), "-libverbs", "-pthread")
    with Agent(tmp_path) as agent:
        programs = []
        try:
            tokens = set()
            for number in range(4):
                environment = quiet(built) | agent.environment
                programs.append(Program([tmp_path / "neat"], environment, tmp_path / f"log{number}"))
                assert programs[-1].tell("open") == "ok"
                agent.accept(keep=number > 0)
                assert agent.hello["pid"] == programs[-1].process.pid
                tokens.add(agent.hello["token"])
            assert len(tokens) == len(programs)
        finally:
            for program in programs:
                program.__exit__(None, None, None)


@pytest.mark.parametrize("steps", ["open-close-open", "exec", "fork-init"])
def test_program_that_does_unusual_things_works(built: Built, tmp_path: Path, steps: str) -> None:
    compile_c(tmp_path / "unusual", Path(__file__).with_name("unusual.c"))
    result = subprocess.run(
        [tmp_path / "unusual", steps],
        env={**os.environ, **quiet(built), "MIGRRDMA_SOCKET": "/nonexistent"},
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
