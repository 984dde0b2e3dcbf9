"""Domains, moderation, rates and other options of connections and regions go with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from guest_agent import MOVING, Agent, GuestError, Program
from guest_build import GUEST_INCLUDES, ROOT, SANITIZERS, Built, compile_c
from guest_moves import GIDS, SAME_INDEX, move_alone
from migrrdma_lab.device.build import build_in_process

Start = Callable[..., Program]


@pytest.fixture
def start_options(
    builds: Callable[[str], Built], agent: Agent, start_program: Start, tmp_path: Path
) -> Callable[[str], Program]:
    def run(variant: str = "plain") -> Program:
        built = builds(variant)
        sources = Path(__file__).parent
        compile_c(
            tmp_path / "options", GUEST_INCLUDES, f"-I{ROOT / 'lab' / 'device' / 'verbs'}", sources / "options.c",
            "-libverbs",
        )  # fmt: skip
        build_in_process(tmp_path / "libibverbs.so.1", *SANITIZERS[variant], more=[sources / "rare.c"])
        environment = {**built.environment, **agent.environment, "LD_LIBRARY_PATH": str(tmp_path)}
        return start_program([tmp_path / "options"], environment)

    return run


@pytest.mark.parametrize("variant", ["plain", "address"])
def test_what_is_made_in_a_parent_domain_moves(
    start_options: Callable[[str], Program], agent: Agent, variant: str
) -> None:
    """The program's allocators are called by its own verbs only: the control thread might wait for their locks."""
    program = start_options(variant)
    assert program.tell("send") == "ok"
    assert program.tell("owned") == "2 0"
    assert not agent.ask("INVENTORY").records
    for turn in range(3):
        move_alone(agent, 1 - turn % 2, restored=program if turn else None)
        assert program.tell("send") == "ok"
    assert program.tell("owned") == "2 0"
    assert program.tell("end") == "ok"


def test_moderation_and_rates_are_set_again(start_options: Callable[[str], Program], agent: Agent) -> None:
    program = start_options("plain")
    for command in ("ece", "moderate 7", "limit 4711"):
        assert program.tell(command) == "ok"
    assert not agent.ask("INVENTORY").records
    assert program.tell("shown") == "7 4711"
    for device in (1, 0):
        move_alone(agent, device)
        assert program.tell("shown") == "7 4711"
        assert program.tell("send") == "ok"


def test_region_is_registered_anew_after_a_move(
    start_options: Callable[[str], Program], agent: Agent
) -> None:
    """Its numbers differ from the device's by then, of which peers have a map; the next ones mean the same to all."""
    program = start_options("plain")
    for turn, what in enumerate(["memory", "domain", "access", "memory"]):
        move_alone(agent, 1 - turn % 2, restored=program)
        assert program.tell("send") == "ok"
        assert program.tell(f"again {what}") == "ok"
        assert program.tell("send") == "ok"
        assert not agent.ask("INVENTORY").records
    move_alone(agent, 0)
    assert program.tell("send") == "ok"


def test_null_region_moves(start_options: Callable[[str], Program], agent: Agent) -> None:
    program = start_options("plain")
    for device in (1, 0):
        assert program.tell("null") == "ok"
        move_alone(agent, device, restored=program)
    assert program.tell("null") == "ok"


@pytest.mark.parametrize("variant", ["plain", "address"])
def test_device_memory_moves_with_what_is_in_it(
    start_options: Callable[[str], Program], agent: Agent, variant: str
) -> None:
    program = start_options(variant)
    assert program.tell("device 4711") == "ok"
    assert not agent.ask("INVENTORY").records
    for turn in range(3):
        move_alone(agent, 1 - turn % 2, restored=program if turn else None)
        assert program.tell(f"device {4711 + turn} again") == "ok"
        assert program.tell(f"device {4712 + turn}") == "ok"
    agent.quiesce()
    agent.ask("PARK")
    agent.ask("UNDO")
    assert program.tell("device 4714 again") == "ok"
    assert program.tell("end") == "ok"


def test_regions_of_all_kinds_of_memory_move_with_their_rights(
    start_options: Callable[[str], Program], agent: Agent
) -> None:
    program = start_options("plain")
    assert program.tell("regions") == "ok"
    assert not agent.ask("INVENTORY").records
    for turn in range(3):
        move_alone(agent, 1 - turn % 2, restored=program if turn else None)
        assert program.tell("regions") == "ok"


def test_memory_that_is_paged_on_demand_moves_to_a_device_that_has_it(
    start_options: Callable[[str], Program], agent: Agent
) -> None:
    program = start_options("plain")
    assert program.tell("demand").endswith("Operation not supported")
    for device in (0, 1):
        assert program.tell(f"paged {device} 1") == "ok"
    assert program.tell("demand") == "ok"
    assert not agent.ask("INVENTORY").records
    for turn in range(3):
        move_alone(agent, 1 - turn % 2, restored=program if turn else None)
        assert program.tell("demand") == "ok"


def test_device_without_on_demand_paging_is_refused_by_name(
    start_options: Callable[[str], Program], agent: Agent
) -> None:
    """Nothing is lost: the next one is given it all."""
    program = start_options("plain")
    assert program.tell("paged 0 1") == "ok"
    assert program.tell("demand") == "ok"
    [context] = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    agent.quiesce()
    agent.ask("PARK", {"flags": 1})
    program.tell("restore")
    agent.wake()
    rebuild = {"context": context, "flags": 1, "device": "fake1"}
    with pytest.raises(GuestError, match="memory region with on-demand paging"):
        agent.ask("REBUILD", rebuild, [SAME_INDEX])
    agent.ask("REBUILD", {**rebuild, "device": "fake0"}, [SAME_INDEX])
    agent.connect_all({context: (GIDS[0], MOVING)})
    agent.give_keys(context, MOVING)
    agent.resume()
    assert program.tell("demand") == "ok"
