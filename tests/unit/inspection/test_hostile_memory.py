"""Whatever a process has written where the guest library's things should be, looking at it ends."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import InspectionError
from migrrdma_runtime.inspection import process
from migrrdma_runtime.inspection.memory import Memory, places

ME = os.getpid()
NAMES = (
    "process", "process.contexts", "process.state", "process.reasons", "process.reason", "reason.size",
    "context.link", "context.id", "context.device", "context.parked", "context.qps", "device.name", "qp.link",
    "qp.number", "qp.state", "qp.peer", "qp.quiesced", "qp.marker", "qp.broken", "qp.kept", "qp.receives.head",
    "qp.receives.at", "qp.receives.stop", "qp.receives.until", "qp.receives.stride", "sections", "section.next",
    "section.taken", "section.inside", "section.tid", "section.verb", "section.since_ns", "section.waits",
)  # fmt: skip


_SIZE = 1 << 19
"""What the pretended numbers have read is inside it, as 64 reasons of a page each: behind it there may be nothing."""


class Pretended:
    """A mapping of a file that is called like the library, in this very process."""

    def __init__(self, file: Path, content: bytes = bytes(_SIZE)) -> None:
        file.write_bytes(content)
        with file.open("r+b") as opened:
            self.memory = mmap.mmap(opened.fileno(), 0, mmap.MAP_PRIVATE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def publish(
        self, values: dict[str, int], *, version: int = 1, count: int | None = None, off: int = 0
    ) -> None:
        head = struct.pack(
            "=24sQII",
            b"migrrdma inspection",
            self.address + off,
            version,
            len(values) if count is None else count,
        )
        body = b"".join(struct.pack("=24sQ", name.encode(), value) for name, value in values.items())
        self.memory[: len(head + body)] = head + body


@pytest.fixture
def pretended(tmp_path: Path) -> Iterator[Pretended]:
    made = Pretended(tmp_path / "libmigrrdma.so")
    yield made
    made.memory.close()  # or the next test would find two


def test_what_is_published_is_found(pretended: Pretended) -> None:
    pretended.publish({"process": 1, "sections": 2})
    with Memory(ME) as memory:
        assert places(ME, memory) == {"process": 1, "sections": 2}


@pytest.mark.parametrize("wrong", [{"version": 9}, {"count": 1 << 31}, {"off": 8}], ids=str)
def test_what_is_not_meant_is_refused(pretended: Pretended, wrong: dict[str, int]) -> None:
    pretended.publish({"process": 1}, **wrong)
    with pytest.raises(InspectionError, match="does not say where its things are"):
        process.look_into(ME)


def test_a_name_that_is_missing_is_named(pretended: Pretended) -> None:
    pretended.publish({"process": pretended.address})
    with pytest.raises(InspectionError, match="does not say where 'sections' is"):
        process.look_into(ME)


def test_lists_without_an_end_end(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_MOST_LINKS", 100)
    here = pretended.address + 8192
    values = dict.fromkeys(NAMES, 0) | {"process": here, "sections": here, "reason.size": 1 << 40}
    # Every word leads to the next place, which leads back: a list that never comes to its head again.
    pretended.memory[8192:8208] = struct.pack("=QQ", here + 8, here + 8)
    pretended.publish(values | {"process.contexts": 0, "section.next": 0})
    found = process.look_into(ME)
    assert len(found.queue_pairs) <= 100 * 100


def test_anything_may_stand_there(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_MOST_LINKS", 50)
    drawn = random.Random(8)  # noqa: S311 (the same every time)
    for _ in range(200):
        for at in range(8192, 1 << 16, 8):
            near = pretended.address + drawn.randrange(8192, 1 << 16)
            struct.pack_into("=Q", pretended.memory, at, drawn.choice((near, near, drawn.getrandbits(64), 0)))
        pretended.publish(
            {
                name: drawn.choice((drawn.randrange(512), drawn.getrandbits(64)))
                if name not in ("process", "sections")
                else pretended.address + drawn.randrange(8192, 1 << 15)
                for name in NAMES
            }
        )
        try:
            process.look_into(ME)
        except InspectionError as error:
            assert str(error).isprintable()


def test_a_library_full_of_beginnings_costs_no_more_than_another(tmp_path: Path) -> None:
    """Each of them is looked at, and nothing is copied for it: the agent does so beside its event loop."""
    words = b"migrrdma inspection".ljust(24, b"\0")
    pretended = Pretended(tmp_path / "libmigrrdma.so", words * ((4 << 20) // len(words)))
    begin = time.process_time()
    with pytest.raises(InspectionError, match="does not say where its things are"):
        process.look_into(ME)
    assert time.process_time() - begin < 30, (
        "a copy of what follows each takes minutes, a look at each tenths of a second"
    )
    pretended.memory.close()


def test_a_process_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InspectionError, match="there is no process 4194304"):
        process.look_into(1 << 22)
    assert process.stall_of(1 << 22) == ""
