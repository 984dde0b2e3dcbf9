"""What devices may have written to, marked as changed: the kernel's dirty tracking does not see their writes.

A page that is registered is pinned, and then ``clear_refs`` leaves it marked, unless it is a part of a transparent huge
page (``clear_soft_dirty`` and ``clear_soft_dirty_pmd`` in the kernel's ``fs/proc/task_mmu.c``): CRIU would take an old
round's bytes for it, silently. What is shared, or of hugetlbfs, CRIU dumps whole in its last step.

While the processes stand still and no device writes any more, one byte of each page that could be so is written again
as it is. A huge page is marked whole by that: it costs one write for 2 MB, and only what was ever registered for
writing is looked at (``guest/shadow/reach.h``).
"""

import os

from migrrdma_runtime.base.errors import CheckpointError, InspectionError
from migrrdma_runtime.inspection.memory import Memory, places
from migrrdma_runtime.shim.page_marks import AT_ONCE, PAGE, Pages, private_mappings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST_PIECES = 1 << 16
_BLOCK = 512
"""Pages of a huge page."""


def mark(pids: "Iterable[int]") -> int:
    """Mark what devices may have written to, of processes that stand still; how many writes that took.

    Raises `CheckpointError` if that cannot be done, or the kernel does not see it: nothing older may then be believed.
    """
    writes = 0
    for pid in pids:
        try:
            writes += _mark_process(pid)
        except (InspectionError, OSError) as error:
            if not os.path.exists(f"/proc/{pid}"):
                continue  # it had ended before
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise CheckpointError(
                f"what devices have written to the memory of process {pid} cannot be told from what an earlier round "
                f"has of it: {why}; --rounds 0 sends all of it at once"
            ) from error
    return writes


def why_not_told(pid: int) -> str:
    """Why a process cannot be told what devices may write to; empty: it can, or has no device."""
    try:
        reach(pid)
    except InspectionError as error:
        return str(error) if os.path.exists(f"/proc/{pid}") else ""
    return ""


def _mark_process(pid: int) -> int:
    pieces = reach(pid)
    if not pieces:
        return 0
    with Pages(pid) as pages:
        return sum(
            _mark_piece(pages, start // PAGE, -(-end // PAGE))
            for start, end in _overlaps(pieces, private_mappings(pid))
        )


def _mark_piece(pages: Pages, first: int, behind: int) -> int:
    writes = 0
    for at in range(first, behind, AT_ONCE):
        found = pages.unmarked(at, min(AT_ONCE, behind - at))
        index = found.find(1)
        while index >= 0:
            page = at + index
            block = min((page // _BLOCK + 1) * _BLOCK, at + len(found))
            writes += _mark_block(pages, page, block)
            index = found.find(1, block - at)
    return writes


def _mark_block(pages: Pages, page: int, behind: int) -> int:
    """Of pages that may be one huge page the first to be marked, and then those that were not marked by that."""
    pages.write_as_it_is(page)
    left = pages.unmarked(page, behind - page)
    others = [page + index for index, is_left in enumerate(left) if is_left]
    for other in others:
        pages.write_as_it_is(other)
    unseen = pages.unmarked(page, behind - page).find(1) if others else -1
    if unseen >= 0:
        raise OSError(0, f"the kernel does not see a write to its page at {(page + unseen) * PAGE:#x}")
    return 1 + len(others)


def reach(pid: int) -> "list[tuple[int, int]]":
    """What devices may ever have written to, in order, as the process's guest library has noted it."""
    with Memory(pid) as memory:
        at = places(pid, memory)
        if at is None:
            return []  # it has no device
        if "reach.pieces" not in at:
            raise InspectionError(
                f"the guest library of process {pid} is of an earlier release and does not say what was registered"
            )
        count = memory.number(at["reach.count"])
        if count > min(at["reach.most"], _MOST_PIECES):
            raise InspectionError(f"its guest library says that {count} pieces of its memory were registered")
        words = memoryview(memory.read(at["reach.pieces"], count * 16)).cast("Q")
        return list(zip(words[::2].tolist(), words[1::2].tolist(), strict=True))


def _overlaps(
    pieces: "list[tuple[int, int]]", mappings: "Iterable[tuple[int, int]]"
) -> "Iterator[tuple[int, int]]":
    """What is in both, of which each is in order."""
    at = 0
    for low, high in mappings:
        while at < len(pieces) and pieces[at][1] <= low:
            at += 1
        index = at
        while index < len(pieces) and pieces[index][0] < high:
            yield max(pieces[index][0], low), min(pieces[index][1], high)
            index += 1
