"""What devices may have written to is marked: small pages, huge ones by one write, nothing that was not registered."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import pytest

from migrrdma_runtime.base.errors import CheckpointError, InspectionError
from migrrdma_runtime.shim import nic_writes, page_marks
from migrrdma_runtime.shim.page_marks import PAGE, Pages


class Marked:
    """Pages that are marked as the kernel does it; none is at first."""

    def __init__(
        self, *, there: set[int], huge: set[int] | None = None, deaf: set[int] | None = None
    ) -> None:
        self.there, self.huge, self.deaf = there, huge or set(), deaf or set()
        self.has_mark: set[int] = set()
        self.writes = 0

    def __enter__(self) -> Marked:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def unmarked(self, first: int, count: int) -> bytes:
        return bytes(
            1 if page in self.there and page not in self.has_mark else 0
            for page in range(first, first + count)
        )

    def write_as_it_is(self, page: int) -> None:
        assert page in self.there
        self.writes += 1
        if page // 512 in self.huge:
            self.has_mark |= set(range(page // 512 * 512, page // 512 * 512 + 512))
        elif page not in self.deaf:
            self.has_mark.add(page)


Marking = Callable[..., int]


@pytest.fixture(name="marking")
def _marking(monkeypatch: pytest.MonkeyPatch) -> Marking:
    def run(pages: Marked, *pieces: tuple[int, int], mappings: tuple[tuple[int, int], ...] = ()) -> int:
        in_bytes = [(start * PAGE, end * PAGE) for start, end in pieces]
        monkeypatch.setattr(nic_writes, "reach", lambda _: in_bytes)
        mapped = mappings or ((0, 1 << 20),)
        monkeypatch.setattr(
            nic_writes, "private_mappings", lambda _: iter([(a * PAGE, b * PAGE) for a, b in mapped])
        )
        monkeypatch.setattr(nic_writes, "Pages", lambda _: pages)
        return nic_writes.mark([os.getpid()])

    return run


def test_every_small_page_is_marked_that_was_registered_and_no_other(marking: Marking) -> None:
    pages = Marked(there=set(range(2000)))
    assert marking(pages, (10, 700), (1000, 1001)) == 691
    assert pages.has_mark == {*range(10, 700), 1000}


def test_a_huge_page_costs_one_write(marking: Marking) -> None:
    pages = Marked(there=set(range(512 * 40)), huge=set(range(40)))
    assert marking(pages, (100, 512 * 33 + 7)) == 34
    assert pages.has_mark >= set(range(100, 512 * 33 + 7))


def test_what_has_its_mark_or_is_not_there_is_not_written_to(marking: Marking) -> None:
    pages = Marked(there={5, 6, 7, 600})
    pages.has_mark = {6}
    assert marking(pages, (0, 1000)) == 3


def test_only_private_memory_is(marking: Marking) -> None:
    pages = Marked(there=set(range(100)))
    marking(pages, (0, 30), (50, 60), mappings=((10, 20), (25, 55)))
    assert pages.has_mark == {*range(10, 20), *range(25, 30), *range(50, 55)}


def test_pages_that_are_looked_at_together_end_anywhere(marking: Marking) -> None:
    last = page_marks.AT_ONCE * 2 + 3
    pages = Marked(there={0, page_marks.AT_ONCE - 1, page_marks.AT_ONCE, last})
    assert marking(pages, (0, last + 1)) == 4


def test_a_write_that_the_kernel_does_not_see_is_an_error(marking: Marking) -> None:
    pages = Marked(there={1, 2, 3}, deaf={3})
    with pytest.raises(CheckpointError, match=r"does not see a write to its page at 0x3000.*--rounds 0"):
        marking(pages, (0, 10))


def test_a_process_whose_library_does_not_say_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> None:
        raise InspectionError("it does not say")

    monkeypatch.setattr(nic_writes, "reach", refuse)
    with pytest.raises(CheckpointError, match="it does not say"):
        nic_writes.mark([os.getpid()])
    assert nic_writes.mark([1 << 30]) == 0, "one that has ended holds nothing"
    assert nic_writes.why_not_told(os.getpid()) == "it does not say"


def test_of_a_process_without_devices_nothing_is_asked() -> None:
    assert nic_writes.mark([os.getpid()]) == 0
    assert nic_writes.why_not_told(os.getpid()) == ""


def test_a_page_is_written_to_as_it_is_and_private_memory_is_found() -> None:
    with mmap.mmap(-1, 4 * PAGE, mmap.MAP_PRIVATE) as memory, mmap.mmap(-1, 4 * PAGE) as shared:
        memory[PAGE] = shared[PAGE] = 42
        mine, others = (page_marks._address_of(one) for one in (memory, shared))
        mappings = list(page_marks.private_mappings(os.getpid()))
        assert any(low <= mine < high for low, high in mappings)
        assert not any(low <= others < high for low, high in mappings)
        with Pages(os.getpid()) as pages:
            first = mine // PAGE
            tracked = page_marks.tracks()
            assert pages.unmarked(first, 3) == (b"\0\0\0" if tracked else b"\0\1\0")
            assert pages.marked(first, 3) == (1 if tracked else 0)
            pages.write_as_it_is(first + 1)
        assert memory[PAGE] == 42
