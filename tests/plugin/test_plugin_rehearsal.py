"""At the dump the plugin proves that no stopped thread holds what the guest's thread takes in a restore."""

from __future__ import annotations

import errno
import re
import struct
import subprocess
from pathlib import Path

import pytest
from criu_image import Proved, parse
from criu_stand_in import StandIn

REPOSITORY = Path(__file__).resolve().parents[2]
_WANTED = {"MIGRRDMA_LATE_REHEARSAL": "30"}


@pytest.fixture
def lock_users(tmp_path: Path) -> Path:
    return _build("lock_users", tmp_path)


@pytest.fixture
def strays(tmp_path: Path) -> Path:
    return _build("strays", tmp_path)


def _build(name: str, folder: Path) -> Path:
    program, source, guest = folder / name, Path(__file__).with_name(f"{name}.c"), REPOSITORY / "guest"
    flags = ["-D_GNU_SOURCE", "-O1", "-pthread", f"-I{guest}"]
    subprocess.run(["gcc", *flags, "-o", program, source, guest / "base/lock.c"], check=True)
    library = folder / "0123abcd" / "libmigrrdma.so"
    library.parent.mkdir()
    library.write_bytes(bytes(4096))
    return program


def _dump(
    criu: StandIn, program: Path, threads: int | str, **environment: str
) -> tuple[int, subprocess.CompletedProcess[str]]:
    """Dump it; returns the lock's word as the threads that were stopped have left it."""
    state = program.with_name("state")
    state.write_bytes(bytes(4096))
    library = program.with_name("0123abcd") / "libmigrrdma.so"
    result = criu.dump(str(program), str(state), str(library), "/dev/zero", str(threads), **environment)
    return struct.unpack("<i", state.read_bytes()[:4])[0], result


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_lock_that_the_guest_needs_is_held_by_nobody_in_the_image(
    criu: StandIn, lock_users: Path, threads: int
) -> None:
    for _ in range(5):
        word, result = _dump(criu, lock_users, threads, **_WANTED)
        assert "checkpoint -95" in result.stdout, result.stderr
        assert word == 0, result.stderr
        records = parse((criu.images / "migrrdma.img").read_bytes())
        assert [type(one) for one in records].count(Proved) == 1


def test_without_a_rehearsal_it_is_held(criu: StandIn, lock_users: Path) -> None:
    words = [_dump(criu, lock_users, 4)[0] for _ in range(10)]
    assert any(words)
    records = parse((criu.images / "migrrdma.img").read_bytes())
    assert not any(isinstance(one, Proved) for one in records)


def test_a_lock_that_is_not_let_go_of_refuses_the_dump_by_who_has_it_and_what_to_do(
    criu: StandIn, lock_users: Path
) -> None:
    word, result = _dump(criu, lock_users, "keeper", MIGRRDMA_LATE_REHEARSAL="1")
    assert f"checkpoint -{errno.EAGAIN}" in result.stdout
    assert word != 0
    [line] = [line for line in result.stderr.splitlines() if "Error (" in line]
    assert re.search(
        r"process \d+ \(lock_users\): thread \d+ \(lock_users\) or \d+ \(keeper\) holds a lock", line
    ), line
    assert "late_commit = false" in line


@pytest.mark.parametrize("what", ["begins", "ends"])
def test_a_thread_that_is_led_on_neither_begins_nor_ends_anything_before_it_goes_on(
    criu: StandIn, strays: Path, what: str
) -> None:
    """CRIU has made its list of threads by then."""
    word, result = _dump(criu, strays, what, MIGRRDMA_TEST_GOES_ON="1", **_WANTED)
    assert "checkpoint -95" in result.stdout, result.stderr
    assert word == 0
    assert "unstopped 0\n" in result.stdout
    [released] = re.findall(r"released (\d+) of (\d+)", result.stdout)
    assert released == ("4", "4")
    assert "said went on" in result.stdout


def test_a_lock_that_cannot_be_let_go_of_without_beginning_a_thread_refuses_the_dump(
    criu: StandIn, strays: Path
) -> None:
    _, result = _dump(criu, strays, "brink", MIGRRDMA_TEST_GOES_ON="1", **_WANTED)
    assert f"checkpoint -{errno.EAGAIN}" in result.stdout
    assert "is about to begin or to end a thread" in result.stderr
    assert "unstopped 0\n" in result.stdout
    assert "said went on" in result.stdout


@pytest.mark.parametrize(
    ("what", "says", "seconds"), [("vfork", "thread would begin", "100"), ("spins", "holds a lock", "1")]
)
def test_a_guest_that_does_something_else_refuses_the_dump_in_the_end(
    criu: StandIn, strays: Path, what: str, says: str, seconds: str
) -> None:
    _, result = _dump(criu, strays, what, MIGRRDMA_LATE_REHEARSAL=seconds)
    assert f"checkpoint -{errno.EAGAIN}" in result.stdout
    assert says in result.stderr


def test_a_guest_that_comes_to_ask_late_is_proved_all_the_same(criu: StandIn, strays: Path) -> None:
    """As on a machine that has much else to do."""
    _, result = _dump(criu, strays, "slow", **_WANTED)
    assert "checkpoint -95" in result.stdout
    records = parse((criu.images / "migrrdma.img").read_bytes())
    assert [type(one) for one in records].count(Proved) == 1


def test_a_guest_that_does_not_know_the_question_is_dumped_without_the_proof(
    criu: StandIn, tmp_path: Path
) -> None:
    """One of an older library: its restore is committed afterwards."""
    program, library = tmp_path / "two_threads", tmp_path / "0123abcd" / "libmigrrdma.so"
    source = Path(__file__).with_name("two_threads.c")
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-O1", "-pthread", "-o", program, source], check=True)
    library.parent.mkdir()
    library.write_bytes(bytes(4096))
    (tmp_path / "counters").write_bytes(bytes(4096))
    result = criu.dump(str(program), str(tmp_path / "counters"), str(library), **_WANTED)
    assert "checkpoint -95" in result.stdout
    assert "a restore commits after it goes on" in result.stderr
