"""What a restored process had on the device that it has left is given back: objects, and their queues.

A device's own library would refuse to end them, as the kernel does not know them any more; so they would stay
in the heap, and be in every image that is made after that.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import datagram_moves
import pytest
from guest_agent import Agent, Program
from guest_build import GUEST_INCLUDES, ROOT, SANITIZERS, Built, compile_c
from guest_moves import move, move_alone
from migrrdma_lab.device.build import build_in_process

ALLOCATORS = ("malloc", "calloc", "aligned_alloc", "free")
LEFT = 3
"""Of each device that was left: its context, and two pieces behind it. See ``docs/verbs.md``."""

Moves = Callable[[Agent, Program, int], None]


def _one(agent: Agent, program: Program, turn: int) -> None:
    move_alone(agent, 1 - turn % 2, restored=program)


def _two(agent: Agent, program: Program, turn: int) -> None:
    move(agent, (turn % 2, 1 - turn % 2), restored=program)


def _datagrams(agent: Agent, program: Program, turn: int) -> None:
    datagram_moves.move(agent, {1: turn % 2, 2: 1 - turn % 2}, restored=program)


OPTIONS = ("send", "null", "device 4711", "regions")
DATAGRAMS = ("shared 0", "handle 0", "post 0 2", "send 1 first", "post 1 1", "send 0 second")
XRC = (
    "domain 0", "domain 1", "queue 1 1 0", "queue 2 0 0", "sender A 0", "target B 1", "init A", "init B",
    "rtr A B", "rtr B A", "rts A", "recv 1 5", "send A 1 1", "window 0",
)  # fmt: skip
PROGRAMS: dict[str, tuple[list[str], tuple[str, ...], Moves, int]] = {
    "options": ([], OPTIONS, _one, 1),
    "datagrams": ([], DATAGRAMS, _datagrams, 2),
    "xrc": ([], XRC, _two, 2),
    "traffic": (["-q", "4", "-e", "-S"], (), _two, 2),
}


class Counted:
    """The allocations of the devices' library."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(bytes(8))

    def __call__(self) -> int:
        return int.from_bytes(self.file.read_bytes(), "little", signed=True)


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "count")


@pytest.fixture(scope="session")
def counted_device(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a devices' library that counts."""
    made: dict[str, Path] = {}

    def get(variant: str) -> Path:
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp("counted")
            sources = Path(__file__).parent
            wraps = [f"-Wl,--wrap={function}" for function in ALLOCATORS]
            more = [sources / "counted.c", sources / "rare.c"]
            build_in_process(made[variant] / "libibverbs.so.1", *SANITIZERS[variant], *wraps, more=more)
        return made[variant]

    return get


@pytest.fixture
def start_counted(
    builds: Callable[[str], Built],
    counted_device: Callable[[str], Path],
    agent: Agent,
    start_program: Callable[..., Program],
    tmp_path: Path,
    counted: Counted,
) -> Callable[..., Program]:
    def run(name: str, variant: str, *, before: Path | None = None) -> Program:
        sources = Path(__file__).parent
        program = tmp_path / name
        reconnects = [sources / "reconnects.c"] if name == "traffic" else []
        compile_c(
            program, GUEST_INCLUDES, f"-I{ROOT / 'lab' / 'device' / 'verbs'}", sources / f"{name}.c", *reconnects,
            "-libverbs", "-pthread",
        )  # fmt: skip
        environment = {
            **builds(variant).environment, **agent.environment,
            "LD_LIBRARY_PATH": str(counted_device(variant)), "COUNTED": str(counted.file),
        }  # fmt: skip
        if before:
            environment["LD_PRELOAD"] += f":{before}"
        # Posting executes: nothing is under way when it is counted.
        del environment["FAKE_ASYNC"]
        return start_program([program, *PROGRAMS[name][0]], environment)

    return run


def _moved(agent: Agent, program: Program, counted: Counted, name: str, times: int) -> None:
    _, commands, moves, contexts = PROGRAMS[name]
    for command in commands:
        assert (answer := program.tell(command)) == "ok" or answer.isdigit(), f"{command}: {answer}"
    moves(agent, program, 0)
    moves(agent, program, 1)
    before = counted()
    assert before > 10
    for turn in range(times):
        moves(agent, program, turn)
    assert counted() - before <= LEFT * contexts * times, (before, counted())
    assert "abort" not in program.diagnosis()


def _kept_by_one_move(agent: Agent, program: Program, counted: Counted) -> int:
    before = counted()
    _one(agent, program, 0)
    assert program.tell("send") == "ok"
    return counted() - before


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("variant", ["plain", "address"])
def test_nothing_of_it_is_kept_but_the_context(
    start_counted: Callable[..., Program], agent: Agent, counted: Counted, name: str, variant: str
) -> None:
    _moved(agent, start_counted(name, variant), counted, name, 6)


@pytest.mark.soak
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_of_it_is_kept_over_a_hundred_moves(
    start_counted: Callable[..., Program], agent: Agent, counted: Counted, name: str
) -> None:
    _moved(agent, start_counted(name, "plain"), counted, name, 100)


def test_all_of_it_is_kept_while_somebody_has_an_event_of_it(
    start_counted: Callable[..., Program], agent: Agent, counted: Counted
) -> None:
    """He acknowledges it to the old object when he is let go."""
    program = start_counted("options", "plain")
    assert program.tell("event 1") == "ok"
    assert _kept_by_one_move(agent, program, counted) > LEFT
    assert program.tell("event 0") == "ok"
    assert _kept_by_one_move(agent, program, counted) <= LEFT
    assert program.tell("end") == "ok"


def test_it_ends_where_another_libibverbs_has_the_variable_that_is_looked_at(
    start_counted: Callable[..., Program], agent: Agent, counted: Counted, tmp_path: Path
) -> None:
    """A wheel brings a copy with a name of its own, and the dynamic linker binds both to the first."""
    source = tmp_path / "copy.c"
    source.write_text(
        "#include <stdbool.h>\nextern bool verbs_allow_disassociate_destroy;\nbool verbs_allow_disassociate_destroy;\n"
    )
    compile_c(tmp_path / "copy.so", "-shared", "-fPIC", source)
    program = start_counted("options", "plain", before=tmp_path / "copy.so")
    assert _kept_by_one_move(agent, program, counted) <= LEFT
    assert program.tell("end") == "ok"


def test_the_libibverbs_of_this_machine_ends_objects_when_it_is_told_so(tmp_path: Path) -> None:
    """With the placeholder that the device's descriptor becomes in a restore; the software device is not asked here."""
    guest = ROOT / "guest"
    compile_c(
        tmp_path / "gone", GUEST_INCLUDES, Path(__file__).with_name("gone.c"), guest / "real" / "gone.c",
        guest / "base" / "elf.c", "-Wl,--no-as-needed", "-libverbs",
    )  # fmt: skip
    lines = subprocess.run(
        [tmp_path / "gone"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    verdicts = [line.split(" ", 1)[1] for line in lines]
    assert verdicts == ["refused"] * 9 + ["ended"] * 9 + ["refused"] * 9, lines
