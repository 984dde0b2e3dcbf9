"""What the plugin does with restored processes that stand at their last instruction, until their agent has decided."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from criu_image import File, Proved, image
from criu_stand_in import StandIn

_MIGRATION = "0123456789abcdef"
_STEPS = 100
"""Of the guest's thread, which makes one every 100 µs or so: long enough for any other to show that it runs."""


class Agent:
    """An agent that answers whoever holds processes with ``lines``, once the guest's thread has made some steps.

    One that says neither that it is alive nor that it is done ends, and the next line is its successor's.
    ``meanwhile``: what happens before it answers; ``may_let_go``: what it answers then.
    """

    def __init__(
        self,
        folder: Path,
        counters: mmap.mmap,
        *lines: str,
        meanwhile: Callable[[], None] = lambda: None,
        may_let_go: str = '{"done": {}}\n',
    ) -> None:
        self.path = folder / "agent.sock"
        self.asked: list[str] = []
        self.steps_of_the_application = -1
        self._counters, self._lines = counters, lines
        self._meanwhile, self._may_let_go = meanwhile, may_let_go
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for line in self._lines:
            connection, _ = self._socket.accept()
            # The plugin ends a connection without a word when what it holds is ended.
            with connection, contextlib.suppress(ConnectionError), connection.makefile("rw") as stream:
                self.asked.append(stream.readline())
                before, start = self._count()
                while self._count()[1] < start + _STEPS:
                    pass
                self.steps_of_the_application = self._count()[0] - before
                self._counters[16:24] = struct.pack("<Q", 1)
                self._meanwhile()
                stream.write(line)
                stream.flush()
                if "alive" not in line and "done" not in line:
                    connection.shutdown(socket.SHUT_WR)
                while asked := stream.readline():
                    self.asked.append(asked)
                    if '"letting_go"' in asked:
                        stream.write(self._may_let_go)
                        stream.flush()

    def _count(self) -> tuple[int, int]:
        return struct.unpack("<QQ", self._counters[:16])

    def close(self) -> None:
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def counters(tmp_path: Path) -> Iterator[mmap.mmap]:
    (tmp_path / "counters").write_bytes(bytes(4096))
    with (tmp_path / "counters").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as memory:
        yield memory


@pytest.fixture
def command(tmp_path: Path, criu: StandIn) -> list[str]:
    """A process with an application's thread and one of the guest library; the image is of one, too."""
    (criu.images / "migrrdma.img").write_bytes(image(File(), Proved(vpid=2)))
    library = tmp_path / "0123abcd" / "libmigrrdma.so"
    library.parent.mkdir()
    library.write_bytes(bytes(4096))
    program = tmp_path / "two_threads"
    source = Path(__file__).with_name("two_threads.c")
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-O1", "-pthread", "-o", program, source], check=True)
    return [str(program), str(tmp_path / "counters"), str(library)]


def _late(criu: StandIn, command: list[str], agent: Agent, **more: str) -> subprocess.CompletedProcess[str]:
    try:
        return criu.late(
            *command,
            MIGRRDMA_LATE_MIGRATION=_MIGRATION,
            MIGRRDMA_LATE_RUNTIME="4711",
            MIGRRDMA_LATE_SOCKET=str(agent.path),
            **more,
        )
    finally:
        agent.close()


def _operations(agent: Agent) -> list[str]:
    return [json.loads(line)["op"] for line in agent.asked]


def _kill(name: str, folder: Path) -> None:
    """Kill the process of that name whose program is in the folder, and see it dead."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if not status.read_text().startswith(f"Name:\t{name}\n"):
                continue
            if status.with_name("cmdline").read_bytes().startswith(bytes(folder)):
                os.kill(int(status.parent.name), signal.SIGKILL)
                while "\nState:\tZ" not in status.read_text():
                    pass


def test_the_guests_thread_runs_alone_until_it_is_committed_and_then_all_go_on(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, counters, '{"alive": true}\n{"step": "committing"}\n{"done": {}}\n')
    result = _late(criu, command, agent)
    # It asks once more before they go on, and says that they do: until then they can be given back.
    assert [json.loads(line) for line in agent.asked] == [
        {"op": "standing", "migration": _MIGRATION, "runtime": 4711},
        {"op": "letting_go", "migration": _MIGRATION, "runtime": 4711},
        {"op": "gone_on", "migration": _MIGRATION, "runtime": 4711, "succeeded": True},
    ]
    assert agent.steps_of_the_application == 0
    # It leaves to other plugins what they may have to do.
    assert result.stdout.splitlines()[1:] == ["late -95", "released 2 of 2", "said went on"]


def test_what_is_refused_is_ended_without_a_step_of_the_application(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path
) -> None:
    error = '{"error": {"kind": "RestoreError", "message": "the claim has lapsed", "released": true}}\n'
    agent = Agent(tmp_path, counters, error)
    before = struct.unpack("<Q", counters[:8])[0]
    result = _late(criu, command, agent)
    assert agent.steps_of_the_application == 0
    assert result.stdout.splitlines()[1:] == ["late -95", "nothing is left"]
    assert "the claim has lapsed" in result.stderr
    assert len(agent.asked) == 1
    assert struct.unpack("<Q", counters[:8])[0] > before  # it had run until it was stopped


@pytest.fixture
def network() -> Iterator[str]:
    """A network with one link, which is up."""
    name = f"late-{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("shared", [False, True], ids=["its own", "shared"])
def test_what_is_refused_is_cut_off_before_it_is_ended_unless_others_are_in_its_network(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path, network: str, *, shared: bool
) -> None:
    error = '{"error": {"kind": "RestoreError", "message": "the claim has lapsed", "released": true}}\n'
    agent = Agent(tmp_path, counters, error)
    inside = ["ip", "netns", "exec", network]
    if shared:
        inside += ["sh", "-c", 'tail --pid=$$ -f /dev/null >/dev/null & exec "$@"', "sh"]
    result = _late(criu, [*inside, *command], agent)
    assert "nothing is left" in result.stdout
    assert ("UP" in _ip("-n", network, "link", "show", "lo").split(">")[0]) is shared


_DONE = '{"alive": true}\n{"step": "committing"}\n{"done": {}}\n'


@pytest.mark.parametrize("line", ['{"alive": true}\n', _DONE], ids=["before", "after"])
@pytest.mark.parametrize("who", ["helper", "application"])
def test_one_that_ends_while_all_are_held_ends_all_before_a_step_of_the_application(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path, who: str, line: str
) -> None:
    """CRIU would end the others, or wait for ever for threads that it does not know to have ended."""
    helper = f"h{os.getpid()}"
    name = helper if who == "helper" else "two_threads"
    agent = Agent(tmp_path, counters, line, meanwhile=lambda: _kill(name, tmp_path))
    result = _late(criu, [*command, helper], agent, MIGRRDMA_TEST_CHILD="lives")
    assert _operations(agent) == ["standing"]
    assert agent.steps_of_the_application == 0
    assert result.stdout.splitlines()[1:] == ["late -95", "nothing is left"]
    assert "has ended while it was to stand" in result.stderr


def test_a_guest_that_waits_for_a_child_is_ended(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path
) -> None:
    """The kernel would not stop it again."""

    def vfork() -> None:
        counters[24:32] = struct.pack("<Q", 1)

    agent = Agent(tmp_path, counters, '{"alive": true}\n', meanwhile=vfork)
    result = _late(criu, command, agent)
    assert "has begun another thread or process" in result.stderr
    assert result.stdout.splitlines()[1:] == ["late -95", "nothing is left"]


def test_what_was_given_back_meanwhile_is_not_let_go(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path
) -> None:
    error = '{"error": {"kind": "RestoreError", "message": "the runtime ended", "released": true}}\n'
    agent = Agent(tmp_path, counters, _DONE, may_let_go=error)
    result = _late(criu, command, agent)
    assert _operations(agent) == ["standing", "letting_go"]
    assert result.stdout.splitlines()[1:] == ["late -95", "nothing is left"]


def test_what_criu_ends_since_one_has_died_is_said_to_the_agent(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path
) -> None:
    """After the plugin's last look; CRIU waits for the first thread of a process that has two."""
    agent = Agent(tmp_path, counters, _DONE)
    result = _late(criu, [*command, f"h{os.getpid()}"], agent, MIGRRDMA_TEST_CHILD="dies")
    assert "ended\n" in result.stdout
    assert json.loads(agent.asked[-1])["succeeded"] is False


def test_an_agent_that_is_restarted_is_asked_again(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path
) -> None:
    in_doubt = (
        '{"step": "committing"}\n{"error": {"kind": "AgentError", "message": "?", "released": false}}\n'
    )
    agent = Agent(tmp_path, counters, "", '{"step": "committing"}\n', in_doubt, '{"done": {}}\n')
    result = _late(criu, command, agent)
    assert _operations(agent) == ["standing"] * 4 + ["letting_go", "gone_on"]
    assert "released 2 of 2" in result.stdout


@pytest.mark.parametrize("proved", [(), (Proved(vpid=3),)], ids=["none", "another"])
def test_of_an_image_without_the_proof_nothing_is_held(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path, proved: tuple[Proved, ...]
) -> None:
    """As CRIU 3.17 makes one, a dump with ``late_commit = false``, or one of an older guest library."""
    (criu.images / "migrrdma.img").write_bytes(image(File(), *proved))
    counters[16:24] = struct.pack("<Q", 1)
    agent = Agent(tmp_path, counters)
    result = _late(criu, command, agent)
    assert "released 2 of 2" in result.stdout
    assert "is committed afterwards" in result.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {
            "MIGRRDMA_LATE_MIGRATION": '"}',
            "MIGRRDMA_LATE_RUNTIME": "4711",
            "MIGRRDMA_LATE_SOCKET": "/nowhere",
        },
        {
            "MIGRRDMA_LATE_MIGRATION": _MIGRATION,
            "MIGRRDMA_LATE_RUNTIME": "1}",
            "MIGRRDMA_LATE_SOCKET": "/nowhere",
        },
    ],
)
def test_a_restore_that_names_no_migration_is_not_held(
    criu: StandIn, command: list[str], counters: mmap.mmap, environment: dict[str, str]
) -> None:
    counters[16:24] = struct.pack("<Q", 1)
    assert "released 2 of 2" in criu.late(*command, **environment).stdout
