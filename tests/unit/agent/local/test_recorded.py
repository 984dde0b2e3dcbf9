"""What is kept of the containers' records is never older than the kernel's answer, and costs a few files a question."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migrrdma_runtime.agent.local.recorded import Recorded

_LONG_AGO = 1_000_000_000
_opened: list[str] | None = None


class Host:
    """Processes and records, as files."""

    def __init__(self, root: Path) -> None:
        self.proc, self.records = root / "proc", root / "containers"
        self.records.mkdir()
        self.recorded = Recorded(self.records, self.proc)

    def process(self, pid: int, cgroup: str, started: int = 0) -> None:
        (self.proc / str(pid)).mkdir(parents=True, exist_ok=True)
        (self.proc / str(pid) / "stat").write_text(f"{pid} (a) S {'0 ' * 18}{started} 0\n")
        (self.proc / str(pid) / "cgroup").write_text(f"0::{cgroup}\n")

    def end(self, pid: int) -> None:
        (self.proc / str(pid) / "cgroup").unlink()

    def record(self, container: str, pid: int, *, age: bool = True) -> None:
        """As the hook does; ``age``: everything about it is old by now."""
        (self.records / container).mkdir(exist_ok=True)
        state = self.records / container / "state.json"
        state.write_text(json.dumps({"pid": pid}))
        if age:
            for path in (state, self.records):
                os.utime(path, (_LONG_AGO, _LONG_AGO))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.process(100, "/a")
    host.process(101, "/a")
    host.record("A", 100)
    assert host.recorded.container_of(101) == "A"
    return host


def test_a_container_that_is_recorded_later_is_found(host: Host) -> None:
    host.process(200, "/b")
    assert host.recorded.container_of(200) == ""
    host.record("B", 200, age=False)
    assert host.recorded.container_of(200) == "B"


def test_a_container_inside_another_one_is_found_though_the_outer_one_would_do(host: Host) -> None:
    host.process(200, "/a/inner")
    assert host.recorded.container_of(200) == "A"
    host.record("B", 200, age=False)
    assert host.recorded.container_of(200) == "B"


def test_a_record_that_comes_after_its_directory_is_found(host: Host) -> None:
    host.process(200, "/a/inner")
    (host.records / "B").mkdir()
    os.utime(host.records, (_LONG_AGO, _LONG_AGO + 1))
    assert host.recorded.container_of(200) == "A"
    host.record("B", 200, age=False)
    os.utime(host.records, (_LONG_AGO, _LONG_AGO + 1))
    assert host.recorded.container_of(200) == "B"


def test_a_first_process_that_comes_to_its_cgroup_after_its_record_is_found_there(host: Host) -> None:
    host.process(200, "/daemon")
    host.record("B", 200, age=False)
    os.utime(host.records, (_LONG_AGO, _LONG_AGO + 1))
    host.process(101, "/a/inner")
    host.process(201, "/a/inner")
    assert host.recorded.container_of(201) == "A"
    host.process(200, "/a/inner")
    assert host.recorded.container_of(201) == "B"


def test_a_first_process_that_has_moved_takes_its_container_along(host: Host) -> None:
    host.process(100, "/elsewhere")
    assert host.recorded.container_of(101) == ""
    assert host.recorded.container_of(100) == "A"


def test_a_container_whose_first_process_has_ended_or_whose_record_is_gone_has_no_processes(
    host: Host,
) -> None:
    host.process(200, "/b")
    host.record("B", 200, age=False)
    assert host.recorded.container_of(200) == "B"
    host.end(100)
    assert host.recorded.container_of(101) == ""
    (host.records / "B" / "state.json").unlink()
    (host.records / "B").rmdir()
    assert host.recorded.container_of(200) == ""


@pytest.mark.parametrize("left_behind", [f"S{number}" for number in range(8)])
def test_a_record_left_behind_takes_no_container_over_that_has_its_number_now(
    tmp_path: Path, left_behind: str
) -> None:
    """In whichever order the directory lists them; the container's guests would be turned away as another's."""
    host = Host(tmp_path)
    host.record(left_behind, 100)
    host.record("B", 200)
    host.process(200, "/b", started=10)
    host.process(201, "/b", started=20)
    host.process(100, "/b", started=30)
    assert host.recorded.container_of(201) == "B"


def _note_what_is_opened(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_note_what_is_opened)


@contextmanager
def _opens() -> Iterator[list[str]]:
    """The files that are opened."""
    global _opened  # noqa: PLW0603 (a hook cannot be taken away again)
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def test_every_guest_of_a_host_is_placed_by_opening_a_few_files(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for number in range(1000, 1300):
        host.process(number, f"/docker/{number}")
        host.record(f"C{number}", number)
    with _opens() as files:
        for number in range(1000, 1300):
            assert host.recorded.container_of(number) == f"C{number}"
    assert len(files) <= 4 * 300, (
        "each record and its first process's cgroup once; its own and that one again"
    )


def test_who_is_in_no_container_cannot_have_all_records_read_time_and_again(tmp_path: Path) -> None:
    """Every user of the host can connect to the host's socket, a thousand times at once."""
    host = Host(tmp_path)
    for number in range(1000, 1100):
        host.process(number, f"/docker/{number}")
        host.record(f"C{number}", number)
    host.process(9, "/user.slice")
    with _opens() as files:
        for _ in range(100):
            assert host.recorded.container_of(9) == ""
    assert len(files) < 100 * 100 / 2
    host.process(2000, "/docker/2000")
    host.record("C2000", 2000, age=False)
    assert host.recorded.container_of(2000) == "C2000"


@pytest.mark.parametrize("around", [f"/system.slice/docker-{'c' * 64}.scope", f"/docker/{'c' * 64}"])
def test_a_first_process_that_has_gone_into_a_cgroup_below_keeps_the_others(host: Host, around: str) -> None:
    """As systemd does, with every service in another one."""
    host.process(300, f"{around}/init.scope")
    host.process(301, f"{around}/system.slice/app.service")
    host.process(302, around)
    host.process(303, "/system.slice/other.service")
    host.record("c" * 64, 300, age=False)
    assert [host.recorded.container_of(pid) for pid in (300, 301, 302)] == ["c" * 64] * 3
    assert host.recorded.container_of(303) == ""
    assert host.recorded.processes([301, 303, 302]) == {"c" * 64: [301, 302]}


def test_a_container_inside_it_is_still_its_own(host: Host) -> None:
    outer = f"/docker/{'c' * 64}"
    host.process(300, f"{outer}/init.scope")
    host.process(301, f"{outer}/docker/{'d' * 64}/x")
    for container, first in (("c" * 64, 300), ("d" * 64, 301)):
        host.record(container, first, age=False)
    assert host.recorded.container_of(301) == "d" * 64


def test_what_a_person_has_called_like_a_slice_is_not_the_whole_slice(host: Host) -> None:
    host.process(300, "/system.slice/x")
    host.process(301, "/system.slice/other.service")
    host.record("system.slice", 300, age=False)
    assert host.recorded.container_of(300) == "system.slice"
    assert host.recorded.container_of(301) == ""
