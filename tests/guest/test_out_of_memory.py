"""Every allocation of the library fails once: the application gets the real library's errors, and no move breaks it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_agent import MOVING, PARTNER, Agent, GuestError, Program
from guest_build import Built, compile_c
from guest_moves import GIDS

GID = [{"port": 1, "index": 1, "new_port": 1, "new_index": 1}]


@pytest.fixture
def poor(built: Built, agent: Agent, tmp_path: Path) -> Iterator[Program]:
    programs = Path(__file__).parent
    compile_c(tmp_path / "libscarce.so", "-fPIC", "-shared", programs / "scarce.c")
    compile_c(tmp_path / "poor", programs / "poor.c", "-libverbs", "-pthread")
    environment = {**built.environment, **agent.environment}
    environment["LD_PRELOAD"] = f"{tmp_path / 'libscarce.so'}:{environment['LD_PRELOAD']}"
    with Program([tmp_path / "poor"], environment, tmp_path / "log") as program:
        agent.diagnosis = program.diagnosis
        yield program


def failing(program: Program) -> Iterator[int]:
    """Arm the first allocation, then the second, …, until one is not reached any more."""
    nth, hit = 0, True
    while hit:
        nth += 1
        assert nth < 500
        program.tell(f"arm {nth}")
        yield nth
        hits = int(program.tell("disarm"))
        assert hits >= 0, "the library was not found"
        hit = hits > 0


def test_verbs_fail_as_the_real_ones_do(poor: Program) -> None:
    refused = set()
    for _ in failing(poor):
        answer = poor.tell("make")
        if answer != "ok":
            verb, number = answer.split()
            assert int(number) == errno.ENOMEM, answer
            refused.add(verb)
            continue
        # Not every allocation is needed at once: what was made must be whole.
        poor.tell("disarm")
        assert [poor.tell("work") for _ in range(3)] == ["ok"] * 3
        assert poor.tell("settle") == "ok"
        assert poor.tell("end") == "ok"
    verbs = {
        "get_device_list",
        "open_device",
        "alloc_pd",
        "create_comp_channel",
        "create_cq",
        "reg_mr",
        "create_qp",
    }
    assert verbs | {"create_cq_ex"} <= refused


def move_in_steps(
    agent: Agent, first: int, second: int, work: Callable[[], None]
) -> list[tuple[str, Callable[[], object]]]:
    moved = {first: (GIDS[0], MOVING), second: (GIDS[1], PARTNER)}
    return [
        ("work", work),
        ("quiesce", agent.quiesce),
        ("work", work),
        ("park", lambda: agent.ask("PARK")),
        ("work", work),
        ("rebuild 1", lambda: agent.ask("REBUILD", {"context": first, "device": "fake0"}, GID)),
        ("rebuild 2", lambda: agent.ask("REBUILD", {"context": second, "device": "fake1"}, GID)),
        ("connect", lambda: agent.connect_all(moved)),
        ("keys 1", lambda: agent.give_keys(first, MOVING)),
        ("keys 2", lambda: agent.give_keys(second, PARTNER)),
        ("work", work),
        ("resume", agent.resume),
        ("work", work),
    ]


def test_failed_move_can_be_undone_and_tried_again(poor: Program, agent: Agent) -> None:
    def work() -> None:
        answer = poor.tell("work")
        assert answer == "ok" or answer.endswith(f" {errno.ENOMEM}"), answer

    failed = set()
    for nth in failing(poor):
        # New objects each time: what an earlier round has allocated would not be allocated again.
        poor.tell("disarm")
        assert poor.tell("make") == "ok"
        if nth == 1:
            agent.accept()
        first, second = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
        poor.tell(f"arm {nth}")
        for name, step in move_in_steps(agent, first, second, work):
            try:
                step()
            except GuestError as error:
                assert error.error == errno.ENOMEM, error
                failed.add(name)
                agent.ask("UNDO")
                break
        poor.tell("disarm")
        assert poor.tell("work") == "ok"
        assert poor.tell("settle") == "ok"
        assert poor.tell("end") == "ok"
    assert failed >= {"quiesce", "rebuild 1", "rebuild 2", "keys 1", "keys 2"}
