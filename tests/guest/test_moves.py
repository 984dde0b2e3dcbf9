"""Quiesce, drain, rebuild and resume under traffic that accounts for every completion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from guest_agent import MOVING, PARTNER, STATES, Agent, GuestError, Program
from guest_moves import GIDS, SAME_INDEX, TRAFFIC, ids, move, partner_move, switch

Start = Callable[..., Program]


@pytest.mark.parametrize("options", TRAFFIC, ids=ids)
def test_quiesce_and_resume_lose_nothing(start: Start, agent: Agent, options: tuple[str, ...]) -> None:
    program = start(*options)
    for _ in range(100):
        agent.quiesce()
        agent.resume()
    program.wait_for_progress()
    assert program.verdict() == "exact"


@pytest.mark.parametrize("options", TRAFFIC, ids=ids)
def test_rebuild_in_place_loses_nothing(start: Start, agent: Agent, options: tuple[str, ...]) -> None:
    program = start(*options)
    for turn in range(60):
        move(agent, (turn % 2, turn % 3 % 2))
    program.wait_for_progress()
    assert program.verdict() == "exact"


@pytest.mark.parametrize("options", TRAFFIC, ids=ids)
def test_restored_process_goes_on_without_touching_what_it_left(
    start: Start, agent: Agent, options: tuple[str, ...]
) -> None:
    program = start(*options)
    for turn in range(20):
        move(agent, (turn % 2, 1 - turn % 2), restored=program)
        program.wait_for_progress(20)
    assert program.verdict() == "exact"


@pytest.mark.parametrize("options", TRAFFIC, ids=ids)
def test_partner_switches_to_new_qps(start: Start, agent: Agent, options: tuple[str, ...]) -> None:
    program = start(*options)
    for turn in range(40):
        partner_move(agent, turn % 2)
    program.wait_for_progress()
    assert program.verdict() == "exact"


def paths(agent: Agent) -> set[tuple[int, bytes, bytes]]:
    """From where to where the connections lead: the context, and the GIDs of both ends."""
    return {(q["context"], bytes(q["sgid"]), bytes(q["dgid"])) for q in agent.qps() if q["state"] == 3}


def leads(first: int, second: int) -> set[tuple[int, bytes, bytes]]:
    """What :func:`paths` is when the two contexts are on these devices."""
    return {(1, GIDS[first], GIDS[second]), (2, GIDS[second], GIDS[first])}


@pytest.mark.parametrize("restores", [True, False])
def test_paths_are_told_as_they_lead_now_after_any_number_of_moves(
    start: Start, agent: Agent, restores: bool
) -> None:
    program = start("-q", "2")
    assert paths(agent) == leads(0, 1)
    for devices in [(1, 0), (0, 0), (1, 1), (0, 1), (1, 1), (1, 0)]:
        move(agent, devices, restored=program if restores else None)
        assert paths(agent) == leads(*devices)
        program.wait_for_progress(20)
    for there in (0, 1, 1, 0, 1):  # the other end sees it move, again and again, while it stays itself
        partner_move(agent, there, 0)
        assert paths(agent) == leads(there, 0)
        program.wait_for_progress(20)
    assert program.verdict() == "exact"  # and the application has seen nothing of it


def test_abort_goes_on_with_the_old_objects_from_every_step(start: Start, agent: Agent) -> None:
    program = start("-q", "4", "-e", "-c")
    first, second = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    before = {q["vqpn"]: q["pqpn"] for q in agent.qps() if q["state"] == 3}
    steps: list[Callable[[], object]] = [
        lambda: agent.ask("PREPARE", {"kind": 1, "context": second}),
        agent.quiesce,
        lambda: agent.ask("PARK"),
        lambda: agent.ask("REBUILD", {"context": first, "device": "fake1"}),
        lambda: agent.connect_all({first: (GIDS[1], MOVING), second: (GIDS[1], PARTNER)}),
        lambda: agent.give_keys(first, MOVING),
    ]
    for last in range(len(steps)):
        for step in steps[: last + 1]:
            step()
        agent.ask("UNDO")
        program.wait_for_progress(50)
    assert {q["vqpn"]: q["pqpn"] for q in agent.qps() if q["state"] == 3} == before
    assert program.verdict() == "exact"


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_partner_is_prepared_again_when_a_restore_came_to_nothing(
    start: Start, agent: Agent, attempts: int
) -> None:
    program = start("-q", "4")
    first, second = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    for turn in range(4):
        agent.quiesce()
        made: list[set[int]] = []
        for attempt in range(attempts):
            agent.ask("PREPARE", {"kind": 1, "context": second})
            made.append({q["next_pqpn"] for q in agent.qps() if q["context"] == second and q["state"] == 3})
            if attempt < attempts - 1:  # to somewhere that will never answer
                gone = {q["vqpn"]: q for q in agent.qps() if q["next_pqpn"] and q["state"] == 3}
                records = [
                    {"context": second, "vqpn": v, "dest_pqpn": 99, "peer": MOVING, "dgid": GIDS[0]}
                    for v in gone
                ]
                agent.ask("CONNECT", None, records)
                agent.ask("KEYS", {"peer": MOVING}, [{"vrkey": 1, "prkey": attempt + 2}])
        assert len(set.union(*made)) == 4 * attempts, "a queue pair was prepared for two restores"
        agent.ask("PARK")
        agent.ask("REBUILD", {"context": first, "device": f"fake{turn % 2}"}, [SAME_INDEX])
        agent.connect_all({first: (GIDS[turn % 2], MOVING), second: (GIDS[1], PARTNER)})
        agent.give_keys(first, MOVING)
        agent.resume()
        program.wait_for_progress()
        assert int(program.tell("made qps")) == 8, "a queue pair was left behind"
    assert program.verdict() == "exact"


def test_context_is_rebuilt_once_until_it_is_given_up(start: Start, agent: Agent) -> None:
    program = start("-q", "2")
    first, _ = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    for _ in range(2):
        agent.quiesce()
        agent.ask("PARK")
        agent.ask("REBUILD", {"context": first, "device": "fake1"})
        with pytest.raises(GuestError, match="has been rebuilt, and not been given up since"):
            agent.ask("REBUILD", {"context": first, "device": "fake0"})
        agent.ask("UNDO")
        program.wait_for_progress(50)
    assert program.verdict() == "exact"


def test_failed_rebuild_can_be_aborted(start: Start, agent: Agent) -> None:
    program = start("-q", "4")
    first, _ = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    verbs = {
        "open_device": 1,
        "alloc_pd": 1,
        "reg_mr": 1,
        "create_comp_channel": 1,
        "create_cq": 1,
        "create_qp": 6,
    }
    for verb, nth in verbs.items():
        agent.quiesce()
        agent.ask("PARK")
        program.tell(f"fail {verb} {nth if verb != 'create_qp' else 1} 12")
        if verb == "create_qp":
            program.tell("fail create_qp 3 12")
        try:
            agent.ask("REBUILD", {"context": first, "device": "fake1"})
        except GuestError as exc:
            assert "fake1" in exc.text
        else:
            # These are tried again without the markers' places, so that one refusal may be survived.
            assert verb in ("create_cq", "create_qp")
        agent.ask("UNDO")
        program.wait_for_progress(50)
    assert program.verdict() == "exact"


def test_deadline_names_the_qps_that_did_not_drain_and_undoes_the_quiesce(start: Start, agent: Agent) -> None:
    program = start("-q", "3", "-s")
    names = sorted(q["vqpn"] for q in agent.qps() if q["context"] == 1)
    stuck: list[int] = []
    # A QP gets stuck at its first message; until then it has only written and read.
    for _ in range(30):
        try:
            agent.quiesce(timeout_ms=100)
        except GuestError as exc:
            assert "did not drain in time" in exc.text
            assert set(stuck) <= set(exc.qps)
            stuck = [
                name for name in exc.qps if name in names
            ]  # the other end may lack a processor for as long
        else:
            assert not stuck
            agent.resume()
        assert agent.ask("INVENTORY").body["state"] == STATES["MIG_STATE_RUNNING"]
        if sorted(stuck) == names:
            break
    assert sorted(stuck) == names
    # With time enough it is those and no others.
    with pytest.raises(GuestError, match="did not drain in time") as in_the_end:
        agent.quiesce(timeout_ms=5000)
    assert sorted(in_the_end.value.qps) == names
    # Markers of the undone quiesces are still under way; none of them may come to light.
    assert program.tell("feed") == "ok"
    program.wait_for_progress()
    agent.quiesce()
    agent.resume()
    program.wait_for_progress()
    assert program.verdict() == "exact"


def test_agent_that_goes_away_before_the_park_undoes_the_quiesce(start: Start, agent: Agent) -> None:
    program = start("-q", "4")
    agent.quiesce()
    agent.accept()
    assert agent.hello["state"] == STATES["MIG_STATE_RUNNING"]
    program.wait_for_progress()
    assert program.verdict() == "exact"


@pytest.mark.parametrize("then", ["move", "abort"])
def test_quiesced_partner_waits_while_its_agent_is_restarted(start: Start, agent: Agent, then: str) -> None:
    program = start("-q", "4", "-e")
    first, second = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    for turn in range(3):
        agent.ask("PREPARE", {"kind": 1, "context": second})
        prepared = {q["vqpn"]: q["next_pqpn"] for q in agent.qps()}
        agent.quiesce(alone_s=60)
        passed = program.progress()
        for _ in range(2):
            agent.accept()
            assert agent.hello["state"] == STATES["MIG_STATE_QUIESCED"]
            assert {q["vqpn"]: q["next_pqpn"] for q in agent.qps()} == prepared
        assert program.progress() - passed <= 4 * 64  # what was delivered, and not polled by the application
        if then == "move":
            agent.ask("PARK")
            agent.ask("REBUILD", {"context": first, "device": f"fake{turn % 2}"}, [SAME_INDEX])
            agent.connect_all({first: (GIDS[turn % 2], MOVING), second: (GIDS[1], PARTNER)})
            agent.give_keys(first, MOVING)
            agent.resume()
        else:
            agent.ask("UNDO")
        program.wait_for_progress()
    assert program.verdict() == "exact"


@pytest.mark.parametrize("silence", ["no agent", "an agent that hangs", "an agent that hangs up"])
@pytest.mark.parametrize("prepared", [False, True], ids=["backwards", "forwards"])
def test_quiesced_partner_that_hears_nothing_goes_on_in_the_end(
    start: Start, agent: Agent, silence: str, prepared: bool
) -> None:
    program = start("-q", "2")
    before = {q["vqpn"]: q["pqpn"] for q in agent.qps() if q["state"] == 3}
    first, second = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    agent.ask("PREPARE")
    agent.quiesce(alone_s=1)
    if prepared:
        agent.connect_all({first: (GIDS[0], MOVING), second: (GIDS[1], PARTNER)})
        agent.give_keys(first, MOVING)
        agent.give_keys(second, PARTNER)
    new = {q["vqpn"]: q["next_pqpn"] for q in agent.qps() if q["state"] == 3}
    if silence == "no agent":
        agent.vanish()
    elif silence == "an agent that hangs up":
        agent.hang_up()  # whoever calls now is taken by the backlog, and never greeted
    program.wait_for_progress()
    if silence == "no agent":
        agent.listen()
    if silence != "an agent that hangs":
        agent.accept()
        while agent.hello["state"] != STATES["MIG_STATE_RUNNING"]:
            agent.accept()
    assert {q["vqpn"]: q["pqpn"] for q in agent.qps() if q["state"] == 3} == (new if prepared else before)
    assert program.verdict() == "exact"


@pytest.mark.parametrize("way", ["in place", "restored", "partner", "switch", "abort"])
def test_asynchronous_events_that_nobody_has_read_are_not_lost(start: Start, agent: Agent, way: str) -> None:
    cq_error, sq_drained, path_migrated = 0, 5, 6
    program = start("-q", "2")
    for turn in range(3):
        first, second = (
            [q["pqpn"] for q in agent.qps() if q["context"] == context and q["state"] == 3]
            for context in (1, 2)
        )
        of_second = [(second[0], cq_error), (second[1], sq_drained), (second[0], path_migrated)]
        for qpn, kind in [(first[1], sq_drained), *of_second]:
            assert program.tell(f"raise {qpn} {kind}") == "ok"
        if way == "partner":
            partner_move(agent, turn % 2)
        elif way == "switch":
            switch(agent)
        elif way == "abort":
            agent.quiesce()
            agent.ask("PARK")
            agent.ask("UNDO")
        else:
            move(agent, (turn % 2, 1 - turn % 2), restored=program if way == "restored" else None)
        assert program.tell("events") == "0:1:5 1:cq:0 1:1:5 1:0:6 ok"
        program.wait_for_progress(50)
    living = next(q["pqpn"] for q in agent.qps() if q["state"] == 3)
    assert program.tell(f"raise {living} {sq_drained}") == "ok"
    agent.quiesce()
    agent.ask("PARK")
    agent.ask("UNDO")
    assert program.verdict() == "exact"  # what is owed of an object ends with it


def test_descriptors_of_placeholders_are_closed_with_them_and_no_others(start: Start, agent: Agent) -> None:
    program = start("-q", "2")
    for _ in range(2):
        agent.quiesce()
        agent.ask("PARK", {"flags": 1})
        program.tell("restore")
        # What CRIU and the plugin would leave, and an application's memory that looks nearly like it.
        leftovers = {program.tell("memory migrrdma-device 1") for _ in range(3)}
        others = {program.tell("memory migrrdma-device 0"), program.tell("memory other 1")}
        agent.wake()
        for context in (1, 2):
            agent.ask(
                "REBUILD", {"context": context, "flags": 1, "device": f"fake{context - 1}"}, [SAME_INDEX]
            )
        agent.connect_all({1: (GIDS[0], MOVING), 2: (GIDS[1], PARTNER)})
        agent.give_keys(1, MOVING)
        agent.give_keys(2, PARTNER)
        agent.resume()
        process = Path("/proc", str(program.process.pid))
        left = {
            link.name for link in (process / "fd").iterdir() if str(link.readlink()).startswith("/memfd:")
        }
        assert left & leftovers == set()
        assert others <= left
        assert "/memfd:migrrdma-device" not in (process / "maps").read_text()
        program.wait_for_progress(50)
    assert program.verdict() == "exact"


def test_new_numbers_that_collide_are_asked_for_again(start: Start, agent: Agent) -> None:
    program = start("-q", "4", "-c")
    numbers = [q["vqpn"] for q in agent.qps()]
    keys = [m["vlkey"] for m in agent.ask("LIST_MRS").records]
    move(agent, (0, 1))
    # The device hands out again what the application still knows as its own.
    program.tell(f"numbers 0 {min(numbers)} {min(keys) - 0x11}")
    program.wait_for_progress()
    assert program.verdict() == "exact"


def test_restored_process_cannot_be_taken_for_a_live_one(start: Start, agent: Agent) -> None:
    program = start("-q", "2")
    agent.quiesce()
    agent.ask("PARK")
    context = agent.ask("LIST_CONTEXTS").records[0]["context"]
    with pytest.raises(GuestError, match="a live device where"):
        agent.ask("REBUILD", {"context": context, "device": "fake1", "flags": 1})
    program.tell("restore")
    with pytest.raises(GuestError, match="no live device"):
        agent.ask("REBUILD", {"context": context, "device": "fake1"})
    with pytest.raises(GuestError, match="the old objects are gone"):
        agent.ask("UNDO")


@pytest.mark.parametrize("fault", ["drop 700", "repeat 700"])
def test_checker_notices_what_broken_hardware_does(start: Start, fault: str) -> None:
    program = start("-q", "2")
    assert program.tell(fault) == "ok"
    # Until it has complained, or so much has passed that it never will.
    while True:
        passed, *complaint = program.tell("count").split(" ", 1)
        if complaint or int(passed) > 100_000:
            break
    assert program.verdict() != "exact", f"{fault} was not noticed"


LONG = pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])


@pytest.mark.parametrize("rounds", [1000, LONG])
def test_qps_that_are_made_while_others_are_at_rest_lose_nothing(
    start: Start, agent: Agent, rounds: int
) -> None:
    program = start("-q", "2", "-r")
    for _ in range(rounds):
        agent.quiesce()
        agent.resume()
        # In place: a connection that is made later finds its other end by the GID, which would be another host's.
        move(agent, (0, 1), whole=True)
    program.wait_for_progress()
    assert program.verdict() == "exact"


@pytest.mark.parametrize("rounds", [1000, LONG])
def test_many_rounds_of_everything(start: Start, agent: Agent, rounds: int) -> None:
    program = start("-q", "4", "-e", "-c", "-t")
    for turn in range(rounds):
        agent.quiesce()
        agent.resume()
        move(agent, (turn % 2, 1 - turn % 2))
        partner_move(agent, turn % 2, 1 - turn % 2)
    program.wait_for_progress()
    assert program.verdict() == "exact"
