"""XRC: connections whose messages name shared receive queues, moved at either end or at both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import Built, compile_c
from guest_moves import move, partner_move

from migrrdma_runtime.wire.guest_messages import text

ERR = 6
REMOTE_ACCESS, REMOTE_INVALID = 10, 9


class Xrc(Program):
    """``xrc.c``. Sides 0 and 1 are the contexts 1 and 2."""

    def __init__(self, program: Path, environment: dict[str, str], log: Path) -> None:
        super().__init__([program], environment, log)
        self.queues: dict[int, int] = {}

    def do(self, *commands: str) -> None:
        for command in commands:
            answer = self.tell(command)
            assert answer == "ok", f"{command}: {answer}"

    def number(self, command: str) -> int:
        """Tell it to make something that has a number."""
        answer = self.tell(command)
        assert answer.isdigit(), f"{command}: {answer}"
        what, name, *_ = command.split()
        if what == "queue":
            self.queues[int(name)] = int(answer)
        return int(answer)

    def connect(self, sender: str, target: str, receiving_side: int, *, built: bool = False) -> None:
        self.do(f"built {int(built)}")
        self.number(f"sender {sender} {1 - receiving_side}")
        self.number(f"target {target} {receiving_side}")
        for one, other in ((sender, target), (target, sender)):
            self.do(f"init {one}", f"rtr {one} {other}")
        self.do(f"rts {sender}")

    def poll(self, side: int) -> str:
        *completions, end = self.tell(f"poll {side}").split()
        assert end == "ok"
        return " ".join(completions)

    def sends_to(self, sender: str, queue: int, *, target: str, number: int, side: int = 1) -> None:
        """One message arrives at that queue, by that target, as the queue's receive of that number."""
        self.do(f"send {sender} {queue} 1")
        assert self.poll(side).endswith(f"{target}:{queue}:0:{number}"), (sender, queue)
        assert f"{sender}:send:0:" in self.poll(1 - side)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("xrc") / "xrc"
    compile_c(made, Path(__file__).with_name("xrc.c"), "-libverbs")
    return made


@pytest.fixture
def start_xrc(program: Path, agent: Agent, tmp_path: Path) -> Iterator[Callable[[Built], Xrc]]:
    started: list[Xrc] = []

    def start(built: Built) -> Xrc:
        environment = {**built.environment, **agent.environment}
        # Posting executes: what a command has posted has completed when it answers.
        del environment["FAKE_ASYNC"]
        xrc = Xrc(program, environment, tmp_path / "log")
        started.append(xrc)
        agent.diagnosis = xrc.diagnosis
        agent.accept()
        return xrc

    yield start
    for xrc in started:
        xrc.__exit__(None, None, None)


@pytest.fixture
def xrc(start_xrc: Callable[[Built], Xrc], built: Built) -> Xrc:
    """A sends to the queues 1 and 2 of side 1 by way of B, and C to the queue 3 of side 0 by way of D."""
    xrc = start_xrc(built)
    prepare(xrc)
    return xrc


def prepare(xrc: Xrc, domain: str = "domain 1", *, built: bool = False) -> None:
    xrc.do("domain 0", domain)
    for queue, side, protection in ((1, 1, 0), (2, 1, 1), (3, 0, 0)):
        xrc.number(f"queue {queue} {side} {protection}")
    xrc.connect("A", "B", 1, built=built)
    xrc.connect("C", "D", 0, built=built)


def all_arrive(xrc: Xrc, *, number: int) -> None:
    """A message to each of the queues, each of which has a receive."""
    xrc.sends_to("A", 1, target="B", number=number)
    xrc.sends_to("A", 2, target="B", number=number)
    xrc.sends_to("C", 3, target="D", number=number, side=0)


def test_nothing_speaks_against_a_move(xrc: Xrc, agent: Agent) -> None:
    xrc.do("recv 1 5")
    inventory = agent.ask("INVENTORY")
    assert (inventory.body["migratable"], inventory.records) == (1, [])
    assert (inventory.body["srqs"], inventory.body["qps"], inventory.body["receives"]) == (3, 4, 5)
    assert inventory.body["keys"] >= len(agent.ask("LIST_MRS").records)


@pytest.mark.parametrize("is_built", [False, True])
def test_messages_go_to_the_queues_that_they_name_after_moves_of_both_ends(
    start_xrc: Callable[[Built], Xrc], built: Built, agent: Agent, is_built: bool
) -> None:
    xrc = start_xrc(built)
    prepare(xrc, built=is_built)
    xrc.do("recv 1 6", "recv 2 6", "recv 3 6")
    all_arrive(xrc, number=0)
    for number, devices in enumerate([(1, 0), (0, 1), (1, 1), (1, 0)], 1):
        move(agent, devices)
        all_arrive(xrc, number=number)


@pytest.mark.parametrize("variant", ["address", "thread"])
def test_under_sanitizers(
    start_xrc: Callable[[Built], Xrc], builds: Callable[[str], Built], agent: Agent, variant: str
) -> None:
    xrc = start_xrc(builds(variant))
    prepare(xrc)
    xrc.do("recv 1 6", "recv 2 6", "recv 3 6")
    all_arrive(xrc, number=0)
    move(agent, (1, 0))
    all_arrive(xrc, number=1)
    partner_move(agent, 0, 0)
    all_arrive(xrc, number=2)
    for name in "ABCD":
        xrc.do(f"destroy {name}")
    xrc.do("end 1", "end 2", "end 3", "close 0", "close 1")


def test_a_partner_goes_on_with_its_queues(xrc: Xrc, agent: Agent) -> None:
    xrc.do("recv 1 6", "recv 2 6", "recv 3 6")
    all_arrive(xrc, number=0)
    for number, device in enumerate([1, 0, 1], 1):
        partner_move(agent, device)
        all_arrive(xrc, number=number)


def test_restored_process_goes_on(
    start_xrc: Callable[[Built], Xrc], built: Built, agent: Agent, tmp_path: Path
) -> None:
    xrc = start_xrc(built)
    prepare(xrc, f"domain 1 {tmp_path / 'file'}")
    xrc.do("recv 1 6", "recv 2 6", "recv 3 6")
    all_arrive(xrc, number=0)
    for number, devices in enumerate([(1, 0), (0, 1), (0, 0)], 1):
        move(agent, devices, restored=xrc)
        all_arrive(xrc, number=number)


def test_kept_messages_name_the_queues_of_after(xrc: Xrc, agent: Agent) -> None:
    xrc.do("recv 1 4", "recv 2 4", "recv 3 4")
    all_arrive(xrc, number=0)
    for number, devices in enumerate([(1, 0), (0, 0)], 1):
        agent.quiesce()
        xrc.do("send A 2 1", "send A 1 1", "send C 3 1")
        assert (xrc.poll(0), xrc.poll(1)) == ("", "")
        move(agent, devices)
        assert xrc.poll(1).endswith(f"B:2:0:{number} B:1:0:{number}")
        assert xrc.poll(0).endswith(f"D:3:0:{number}")


def test_a_queue_that_ends_does_not_take_those_with_it_that_have_named_it(xrc: Xrc, agent: Agent) -> None:
    xrc.do("recv 1 1", "recv 2 4")
    xrc.sends_to("A", 1, target="B", number=0)
    xrc.do("end 1")
    for number, devices in enumerate([(1, 0), (0, 1)]):
        move(agent, devices)
        xrc.sends_to("A", 2, target="B", number=number)


def test_what_a_queue_that_has_ended_received_is_told_by_its_own_name(xrc: Xrc, agent: Agent) -> None:
    xrc.do("recv 1 3", "recv 2 3", "send A 1 2", "send A 2 1", "end 1")
    move(agent, (1, 0))
    xrc.do("send A 2 1", "destroy B")
    assert xrc.poll(1) == "B:1:0:0 B:1:0:1 B:2:0:0 B:2:0:1"


def test_keys_open_what_the_named_queue_has_its_domain_in(xrc: Xrc, agent: Agent) -> None:
    first, second = xrc.number("region 1 1"), xrc.number("region 2 1 1")
    for devices in (None, (1, 0), (1, 1)):
        if devices:
            move(agent, devices)
        xrc.do("write A 1 1", "write A 2 2")
        assert (xrc.tell("show 1"), xrc.tell("show 2")) == ("4711", "4711"), (first, second)
    xrc.do("write A 1 2")
    assert (xrc.tell("show 1"), xrc.tell("state A")) == ("0", str(ERR))
    assert xrc.poll(0).split()[-1].startswith(f"A:send:{REMOTE_ACCESS}:")


@pytest.mark.parametrize("moved", [False, True])
def test_a_number_that_is_no_queues_any_more_is_refused(xrc: Xrc, agent: Agent, moved: bool) -> None:
    """Also where the device has given it to another one, which is known by an earlier number."""
    xrc.do("recv 2 1", "end 3")
    for queue in (4, 5):
        xrc.number(f"queue {queue} 0")
    if moved:
        move(agent, (0, 0))  # the queues of side 1 take the numbers that follow those of side 0
    xrc.do("end 1", "send A 1 1")
    assert xrc.poll(0) == f"A:send:{REMOTE_INVALID}:0"
    assert xrc.poll(1) == ""


def test_a_queue_that_is_made_after_a_move_has_a_number_of_its_own(xrc: Xrc, agent: Agent) -> None:
    move(agent, (0, 1))
    move(agent, (1, 0))
    numbers = [xrc.number(f"queue {queue} 1") for queue in (4, 5, 6, 7)]
    known = {one["vrkey"] for one in agent.ask("LIST_MRS").records if one["kind"] and one["context"] == 2}
    assert len(known) == 6 and set(numbers) < known
    for queue in (4, 5, 6, 7):
        xrc.do(f"recv {queue} 1")
        xrc.sends_to("A", queue, target="B", number=0)


def test_numbers_of_a_queue_that_has_ended_are_given_to_no_other(xrc: Xrc, agent: Agent) -> None:
    """The peer has been told that the one means the other, which is nobody's name."""
    xrc.do("reuse 1")
    move(agent, (1, 0))
    [record] = [one for one in agent.ask("LIST_MRS").records if one["kind"] and one["vrkey"] == xrc.queues[2]]
    spent = {record["vrkey"], record["prkey"]}
    assert len(spent) == 2
    xrc.do("end 2")
    for queue in range(4, 8):
        assert xrc.number(f"queue {queue} 1") not in spent
        xrc.do(f"recv {queue} 1")
        xrc.sends_to("A", queue, target="B", number=0)


@pytest.mark.parametrize("name", ["A", "B"])
def test_one_that_has_failed_moves_as_it_is(xrc: Xrc, agent: Agent, name: str) -> None:
    xrc.do("recv 1 2", "recv 3 2", f"err {name}")
    for number, devices in enumerate([(1, 0), (0, 1)]):
        move(agent, devices)
        assert xrc.tell(f"state {name}") == str(ERR)
        xrc.sends_to("C", 3, target="D", number=number, side=0)
    xrc.do("destroy A", "destroy B")
    xrc.number("queue 4 1")
    xrc.do("recv 4 1")
    xrc.connect("E", "F", 1)
    xrc.sends_to("E", 4, target="F", number=0)


def test_one_is_reset_and_connected_again_after_a_move(xrc: Xrc, agent: Agent) -> None:
    xrc.do("recv 1 3")
    xrc.sends_to("A", 1, target="B", number=0)
    move(agent, (1, 0))
    xrc.do("send A 1 1", "reset B", "reset A")
    assert xrc.poll(1) == "B:1:0:1"
    xrc.poll(0)
    for name in "AB":
        xrc.do(f"init {name}")
    move(agent, (1, 1))
    inventory = agent.ask("INVENTORY")
    assert inventory.body["migratable"] == 1


def test_targets_and_senders_have_no_receives_of_their_own(xrc: Xrc, agent: Agent) -> None:
    bare = [xrc.tell(f"post {name}") for name in "AB"]
    agent.quiesce()
    assert [xrc.tell(f"post {name}") for name in "AB"] == bare == ["EINVAL", "EINVAL"]
    assert xrc.tell("send B 1 1") == "EINVAL"


def test_window_that_a_kept_request_is_about_does_not_end_before_it(xrc: Xrc, agent: Agent) -> None:
    """A request that does nothing, which would stand in its place, would have to name a queue of the other end."""
    xrc.do("recv 1 2", "window 0", "bind A")
    xrc.sends_to("A", 1, target="B", number=0)
    agent.quiesce()
    xrc.do("bind A", "bind A")
    assert xrc.tell("drop") == "EBUSY"
    agent.ask("UNDO")
    xrc.sends_to("A", 1, target="B", number=1)
    xrc.do("drop")


def test_undone_move_leaves_all_as_it_was(xrc: Xrc, agent: Agent) -> None:
    xrc.do("recv 1 4", "recv 2 4", "recv 3 4")
    all_arrive(xrc, number=0)
    made = [xrc.tell(f"made {what}") for what in ("qp", "srq", "mw")]
    agent.quiesce()
    agent.ask("PARK")
    agent.ask(
        "REBUILD", {"context": 2, "device": "fake0"}, [{"port": 1, "index": 1, "new_port": 1, "new_index": 1}]
    )
    agent.ask("UNDO")
    all_arrive(xrc, number=1)
    assert [xrc.tell(f"made {what}") for what in ("qp", "srq")] == made[:2]


def test_a_domain_of_a_file_moves_unless_it_is_shared(
    start_xrc: Callable[[Built], Xrc], built: Built, agent: Agent, tmp_path: Path
) -> None:
    xrc = start_xrc(built)
    xrc.do("domain 0", f"domain 1 {tmp_path / 'file'}")
    xrc.number("queue 1 1")
    xrc.connect("A", "B", 1)
    xrc.do("recv 1 2")
    move(agent, (1, 0))
    xrc.sends_to("A", 1, target="B", number=0)


def test_who_shares_a_domain_or_a_target_cannot_be_moved_as_long_as_it_does(
    start_xrc: Callable[[Built], Xrc], built: Built, agent: Agent, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    xrc = start_xrc(built)
    xrc.do(f"domain 0 {file}")
    xrc.number("target B 0")
    xrc.do("open C B 0")
    assert reasons(agent) == ["a shared XRC QP"]
    xrc.do("destroy C")
    assert reasons(agent) == []
    move(agent, (1, 1))
    xrc.do(f"domain 1 {file}")
    assert reasons(agent) == ["an XRC domain that was open already when this process opened its file"]
    xrc.do("close 1")
    assert reasons(agent) == []
    assert (
        xrc.tell(f"domain 1 {tmp_path / 'other'} 2") == "EAGAIN"
    )  # nobody has it open, and it was not to be made
    assert reasons(agent) == []


def reasons(agent: Agent) -> list[str]:
    return [text(one["text"]) for one in agent.ask("INVENTORY").records]
