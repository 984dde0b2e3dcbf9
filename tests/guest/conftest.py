"""The guest library and the programs of its tests, built once per session and variant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import GUEST_INCLUDES, Built, build, compile_c
from guest_shell import Shell


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    made: dict[str, Built] = {}

    def get(variant: str) -> Built:
        if variant not in made:
            made[variant] = build(tmp_path_factory.mktemp(variant), variant)
        return made[variant]

    return get


@pytest.fixture
def built(builds: Callable[[str], Built]) -> Built:
    return builds("plain")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with Agent(tmp_path) as agent:
        yield agent


@pytest.fixture
def start_program(agent: Agent, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a program under the guest library and wait until its guest has called."""
    programs: list[Program] = []

    def run(words: list[str | Path], environment: dict[str, str]) -> Program:
        program = Program(words, environment, tmp_path / "log")
        programs.append(program)
        agent.diagnosis = program.diagnosis
        agent.accept()
        return program

    yield run
    for program in programs:
        program.__exit__(None, None, None)


@pytest.fixture
def start(built: Built, agent: Agent, start_program: Callable[..., Program]) -> Callable[..., Program]:
    """Start ``traffic`` under the guest library and wait until its guest has called."""

    def run(*options: str, build: Built = built) -> Program:
        return start_program([build.traffic, *options], {**build.environment, **agent.environment})

    return run


@pytest.fixture
def start_stalls(
    builds: Callable[[str], Built], agent: Agent, start_program: Callable[..., Program], tmp_path: Path
) -> Callable[..., Program]:
    """Start ``stalls`` under the guest library, in a variant of it."""

    def run(variant: str = "plain") -> Program:
        built = builds(variant)
        compile_c(
            tmp_path / "stalls", Path(__file__).with_name("stalls.c"), "-rdynamic", "-libverbs", "-pthread"
        )
        environment = {**built.environment, **agent.environment}
        # Posting executes: what a command has posted has completed when it answers.
        del environment["FAKE_ASYNC"]
        return start_program([tmp_path / "stalls"], environment)

    return run


@pytest.fixture
def stalls(start_stalls: Callable[..., Program]) -> Program:
    return start_stalls()


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("states") / "states"
    compile_c(program, GUEST_INCLUDES, Path(__file__).with_name("states.c"), "-libverbs", "-pthread")
    return program


@pytest.fixture
def shell(states: Path, built: Built, agent: Agent, tmp_path: Path) -> Iterator[Shell]:
    environment = {**built.environment, **agent.environment}
    # Posting executes: what a command has posted has completed when it answers.
    del environment["FAKE_ASYNC"]
    shell = Shell(states, environment, tmp_path / "log")
    with shell:
        agent.diagnosis = shell.diagnosis
        agent.accept()
        yield shell
