"""A libibverbs with verbs that this library does not know: they are passed through, and mark what is handed to them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import Built, compile_c
from guest_moves import SAME_INDEX
from migrrdma_lab.device.build import build_in_process

from migrrdma_runtime.wire.guest_messages import text

_VERBS = ["ibv_weigh", "ibv_whose", "ibv_of_nobody", "ibv_call_it"]
_SOURCES = Path(__file__).parent
_WAYS = {"resolved": ["-Wl,-z,now"], "by and by": ["-Wl,-z,lazy"], "looked up": ["-DLOOKED_UP"]}
Start = Callable[[str], Program]


def _handed_to(verb: str) -> str:
    return f"what was handed to {verb}, which the guest library does not know"


def _reasons(agent: Agent) -> list[str]:
    return sorted(text(one["text"]) for one in agent.ask("INVENTORY").records)


@pytest.fixture(scope="session")
def tomorrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library is."""
    folder = tmp_path_factory.mktemp("tomorrow")
    build_in_process(
        folder / "libibverbs.so.1",
        more=[_SOURCES / "tomorrow.c"],
        versions=f"IBVERBS_1.99 {{ global: {' '.join(f'{name};' for name in _VERBS)} }} IBVERBS_1.14;\n",
    )
    return folder


@pytest.fixture
def begin(built: Built, agent: Agent, tomorrow: Path, tmp_path: Path) -> Iterator[Start]:
    programs: list[Program] = []

    def begin(way: str) -> Program:
        program = tmp_path / "program"
        compile_c(program, _SOURCES / "calls_tomorrow.c", *_WAYS[way], tomorrow / "libibverbs.so.1", "-ldl")
        environment = {**built.environment, **agent.environment, "LD_LIBRARY_PATH": str(tomorrow)}
        programs.append(Program([program], environment, tmp_path / "log"))
        agent.diagnosis = programs[-1].diagnosis
        agent.accept()
        return programs[-1]

    yield begin
    for program in programs:
        program.__exit__(None, None, None)


@pytest.mark.parametrize("way", _WAYS)
def test_objects_that_are_handed_over_are_the_real_ones_and_marked(
    begin: Start, agent: Agent, way: str
) -> None:
    program = begin(way)
    for _ in range(2):
        assert program.tell("nobody") == "42"
        assert _reasons(agent) == []
    for _ in range(2):
        assert program.tell("weigh") == "-0.5 4711"
        assert _reasons(agent) == [_handed_to("ibv_weigh")]
    assert program.tell("end") == "ok"
    assert _reasons(agent) == []
    assert program.tell("whose") == "another"
    assert _reasons(agent) == [_handed_to("ibv_whose")]


def test_device_is_the_real_one(begin: Start, agent: Agent) -> None:
    assert begin("resolved").tell("name") == "fake0"
    assert _reasons(agent) == [_handed_to("ibv_call_it")]


def test_process_moves_that_hands_nothing_over(begin: Start, agent: Agent) -> None:
    """And afterwards they are handed what is real then."""
    program = begin("by and by")
    assert program.tell("nobody") == "42"
    agent.quiesce()
    agent.ask("PARK")
    [context] = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    agent.ask("REBUILD", {"context": context, "device": "fake1"}, [SAME_INDEX])
    agent.resume()
    assert program.tell("weigh") == "-0.5 4711"


def test_program_without_the_guest_library_says_the_same(tomorrow: Path, tmp_path: Path) -> None:
    compile_c(tmp_path / "program", _SOURCES / "calls_tomorrow.c", tomorrow / "libibverbs.so.1")
    result = subprocess.run(
        [tmp_path / "program"],
        input="whose\nweigh\nnobody\nname\nend\n",
        env={"LD_LIBRARY_PATH": str(tomorrow)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split("\n")[:-1] == ["ready", "the same", "-0.5 4711", "42", "fake0", "ok"]
