"""What the plugin does with restored processes that stand at their last instruction, until their agent has decided."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from criu_image import File, Proved, image
from criu_stand_in import StandIn

_MIGRATION = "0123456789abcdef"
_STEPS = 100
"""Of the guest's thread, which makes one every 100 µs or so: long enough for any other to show that it runs."""


class Agent:
    """An agent that answers whoever holds processes with ``lines``, once the guest's thread has made some steps."""

    def __init__(self, folder: Path, counters: mmap.mmap, *lines: str) -> None:
        self.path = folder / "agent.sock"
        self.asked: list[str] = []
        self.steps_of_the_application = -1
        self._counters, self._lines = counters, lines
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for line in self._lines:
            connection, _ = self._socket.accept()
            with connection, connection.makefile("rw") as stream:
                self.asked.append(stream.readline())
                before, start = self._count()
                while self._count()[1] < start + _STEPS:
                    pass
                self.steps_of_the_application = self._count()[0] - before
                self._counters[16:24] = struct.pack("<Q", 1)
                stream.write(line)
                stream.flush()
                connection.shutdown(socket.SHUT_WR)
                self.asked += stream.readlines()

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


def _late(criu: StandIn, command: list[str], agent: Agent) -> subprocess.CompletedProcess[str]:
    try:
        return criu.late(
            *command,
            MIGRRDMA_LATE_MIGRATION=_MIGRATION,
            MIGRRDMA_LATE_RUNTIME="4711",
            MIGRRDMA_LATE_SOCKET=str(agent.path),
        )
    finally:
        agent.close()


def test_the_guests_thread_runs_alone_until_it_is_committed_and_then_all_go_on(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, counters, '{"alive": true}\n{"step": "committing"}\n{"done": {}}\n')
    result = _late(criu, command, agent)
    # It says so when they go on: until then the agent takes the end of CRIU for theirs.
    assert agent.asked == [
        f'{{"op": "{operation}", "migration": "0123456789abcdef", "runtime": 4711}}\n'
        for operation in ("standing", "letting_go")
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
    assert result.stdout.splitlines()[1:] == ["late -95", "released 0 of 2"]
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
    assert "released 0 of 2" in result.stdout
    assert ("UP" in _ip("-n", network, "link", "show", "lo").split(">")[0]) is shared


def test_an_agent_that_is_restarted_is_asked_again(
    criu: StandIn, command: list[str], counters: mmap.mmap, tmp_path: Path
) -> None:
    in_doubt = (
        '{"step": "committing"}\n{"error": {"kind": "AgentError", "message": "?", "released": false}}\n'
    )
    agent = Agent(tmp_path, counters, "", '{"step": "committing"}\n', in_doubt, '{"done": {}}\n')
    result = _late(criu, command, agent)
    assert [line.split('"')[3] for line in agent.asked] == ["standing"] * 4 + ["letting_go"]
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
