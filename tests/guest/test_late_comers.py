"""What a queue pair is connected to by what the agent says of the one that the application names."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from guest_agent import WIRE, Agent
from guest_build import Built
from guest_moves import GIDS, rebuild_and_resume
from guest_shell import INIT, RTR, Shell

from migrrdma_runtime.wire.guest_messages import Message


class Asked:
    """An agent whose guest asks where queue pairs are, and the program, of which a command waits for the answer."""

    def __init__(self, shell: Shell, agent: Agent) -> None:
        self.shell, self.agent = shell, agent
        agent.answers = True
        agent.accept()
        # Answered by the thread that has read the welcome before: from now on the program knows that it may ask.
        agent.ask("INVENTORY")

    def begin(self, command: str) -> None:
        assert self.shell.process.stdin is not None
        self.shell.process.stdin.write(command + "\n")
        self.shell.process.stdin.flush()

    def question(self) -> Message:
        message = self.agent.receive()
        assert message.kind == "WHERE"
        return message

    def tell(self, question: Message, records: Any = (), *, more: bool = False, **there: Any) -> None:
        body = {"gid": question.body["dgid"], "qpn": question.body["qpn"], **there}
        self.agent.connection.send(WIRE.pack("THERE", body, records, ident=question.ident, more=more))

    def end(self) -> str:
        """What the command has come to."""
        return self.shell.line()

    def join(self, one: str, other: str, **there: Any) -> None:
        """Connect this end to that one, which is there."""
        self.shell.do(f"init {one}")
        self.begin(f"rtr {one} {other}")
        self.tell(self.question(), **there)
        assert self.end() == "ok"
        self.shell.do(f"rts {one}")


@pytest.fixture
def asked(shell: Shell, agent: Agent) -> Asked:
    return Asked(shell, agent)


def test_it_says_who_it_is_and_whom_it_wants_and_goes_on_when_it_is_told(asked: Asked) -> None:
    shell = asked.shell
    shell.make(A=0, B=1)
    shell.do("init A")
    asked.begin("rtr A B")
    question = asked.question()
    body = question.body
    assert (body["context"], body["vqpn"], body["qpn"]) == (1, shell.numbers["A"], shell.numbers["B"])
    assert (body["vgid"], body["gid"], body["dgid"]) == (GIDS[0], GIDS[0], GIDS[1])
    asked.tell(question)
    assert asked.end() == "ok"
    assert shell.state("A") == RTR


def test_what_is_sent_goes_to_where_the_other_end_is(asked: Asked) -> None:
    """And the application is shown whom it has named."""
    shell = asked.shell
    shell.make(A=0, B=1, C=1)
    asked.join("A", "B", qpn=shell.numbers["C"], peer=77)
    asked.join("C", "A")
    [seen] = [one for one in asked.agent.qps() if one["vqpn"] == shell.numbers["A"]]
    assert (seen["dest_vqpn"], seen["dest_pqpn"]) == (shell.numbers["B"], shell.numbers["C"])
    shell.do("recv C 1", "send A 1")
    assert shell.poll(1) == "C:recv:0:0"


def test_of_one_that_is_being_moved_it_asks_again(asked: Asked) -> None:
    asked.shell.make(A=0, B=1)
    asked.shell.do("init A")
    asked.begin("rtr A B")
    for _ in range(5):
        asked.tell(asked.question(), error=errno.EAGAIN, text=b"it is being moved")
    asked.tell(asked.question())
    assert asked.end() == "ok"


@pytest.mark.parametrize(
    ("said", "times", "heard"),
    [(errno.EAGAIN, 12, errno.ETIMEDOUT), (errno.EHOSTUNREACH, 1, errno.EHOSTUNREACH)],
)
def test_one_that_cannot_be_found_is_refused(asked: Asked, said: int, times: int, heard: int) -> None:
    """And the queue pair can be connected to another."""
    shell = asked.shell
    shell.make(A=0, B=1)
    shell.do("init A")
    asked.begin("rtr A B")
    for _ in range(times):
        asked.tell(asked.question(), error=said, text=b"for a reason")
    assert asked.end() == errno.errorcode[heard]
    assert shell.state("A") == INIT
    assert "for a reason" in shell.log.read_text()
    asked.begin("rtr A B")
    asked.tell(asked.question())
    assert asked.end() == "ok"


def test_an_agent_that_is_started_again_is_asked_again(asked: Asked) -> None:
    asked.shell.make(A=0, B=1)
    asked.shell.do("init A")
    asked.begin("rtr A B")
    asked.question()
    asked.agent.accept()
    asked.tell(asked.question())
    assert asked.end() == "ok"


def test_where_it_has_come_to_an_agent_that_answers_none_nobody_waits(asked: Asked) -> None:
    """Neither who asked before the move, nor who connects after it: the name stands for itself."""
    shell, agent = asked.shell, asked.agent
    shell.make(A=0, B=1, C=0)
    shell.do("init A", "init C")
    asked.begin("rtr A B")
    asked.question()
    agent.quiesce()
    agent.ask("PARK", {"flags": 1})
    agent.answers = False
    agent.wake()
    agent.ask("UNDO")
    assert asked.end() == "ok"
    shell.do("rtr C B")


def test_who_has_moved_while_it_asks_asks_as_who_it_is_now(asked: Asked) -> None:
    """The agent where it has come to believes no numbers of where it was."""
    shell, agent = asked.shell, asked.agent
    shell.make(A=0, B=1)
    shell.do("init A")
    asked.begin("rtr A B")
    before = asked.question().body
    agent.quiesce()
    agent.ask("PARK", {"flags": 1})
    agent.wake()
    rebuild_and_resume(agent)
    question = asked.question()
    asked.tell(question)
    assert asked.end() == "ok"
    now = question.body
    assert (before["gid"], now["gid"]) == (GIDS[0], GIDS[1])
    assert now["vqpn"] == before["vqpn"]
    assert [now["pqpn"]] == [one["pqpn"] for one in agent.qps() if one["vqpn"] == shell.numbers["A"]]


@pytest.mark.parametrize("answers", [True, False])
def test_who_connects_before_the_agent_has_welcomed_it_waits_for_that(
    states: Path, built: Built, agent: Agent, tmp_path: Path, answers: bool
) -> None:
    """Where questions are answered: its socket says so. A process that has only begun was not told where others are."""
    agent.answers = answers
    agent.path.chmod(0o777)
    shell = Shell(states, {**built.environment, **agent.environment}, tmp_path / "log")
    with shell:
        shell.make(A=0, B=1)
        shell.do("init A")
        assert shell.process.stdin is not None
        shell.process.stdin.write("rtr A B\n")
        shell.process.stdin.flush()
        agent.accept()
        if answers:
            question = agent.receive()
            there = {"gid": question.body["dgid"], "qpn": question.body["qpn"]}
            agent.connection.send(WIRE.pack("THERE", there, ident=question.ident))
        assert shell.line() == "ok"


def test_keys_come_in_parts_and_an_answer_to_nothing_is_ignored(asked: Asked) -> None:
    shell = asked.shell
    shell.make(A=0, B=1)
    region = int(shell.tell("region 1 1"))
    shell.do("init A")
    asked.begin("rtr A B")
    question = asked.question()
    stray = Message(question.kind, question.ident + 1, question.body)
    asked.tell(stray, error=errno.EHOSTUNREACH)
    others = [{"vrkey": 0x7000 + one, "prkey": 0x9000 + one} for one in range(300)]
    asked.tell(question, others, more=True, keys=301, peer=9)
    asked.tell(question, [{"vrkey": 0x77, "prkey": region}], keys=301, peer=9)
    assert asked.end() == "ok"


def test_more_keys_than_were_announced_end_the_connection(asked: Asked) -> None:
    """And it asks again over the next one."""
    asked.shell.make(A=0, B=1)
    asked.shell.do("init A")
    asked.begin("rtr A B")
    asked.tell(asked.question(), [{"vrkey": 1, "prkey": 2}, {"vrkey": 3, "prkey": 4}], keys=1)
    asked.agent.accept()
    asked.tell(asked.question())
    assert asked.end() == "ok"


def test_an_agent_that_answers_none_is_asked_none(shell: Shell, agent: Agent) -> None:
    shell.connect("AB")
    shell.do("recv B 1", "send A 1")
    assert shell.poll(1) == "B:recv:0:0"
    assert agent.qps()  # what it says next is the answer to this
