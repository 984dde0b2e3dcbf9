"""What devices may write to is kept in few pieces that leave nothing out, however often memory is registered."""

from __future__ import annotations

import ctypes
import itertools
import random
from pathlib import Path

import pytest
from guest_build import ROOT, compile_c

_LOCAL_WRITE, _REMOTE_WRITE, _REMOTE_READ, _REMOTE_ATOMIC, _MW_BIND, _ON_DEMAND = 1, 2, 4, 8, 16, 64
_MOST = 1024

_STAND_IN = """
#include "shadow/process.h"
struct mig_process mig;
void mig_lock_wait(struct mig_lock *lock) { (void)lock; }
void mig_lock_wake(struct mig_lock *lock) { (void)lock; }
"""


class _Piece(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64))


class _Reach(ctypes.Structure):
    _fields_ = (("count", ctypes.c_uint32), ("pieces", _Piece * _MOST))


class Reach:
    """The guest library's own, by itself."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._found = _Reach.in_dll(self._library, "mig_reach")
        self._found.count = 0

    def add(self, start: int, length: int, access: int = _LOCAL_WRITE) -> None:
        self._library.mig_reach_add(ctypes.c_void_p(start), ctypes.c_size_t(length), ctypes.c_uint(access))

    @property
    def pieces(self) -> list[tuple[int, int]]:
        return [(one.start, one.end) for one in self._found.pieces[: self._found.count]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reach")
    (folder / "stand_in.c").write_text(_STAND_IN)
    guest = ROOT / "guest"
    compile_c(
        folder / "reach.so", "-shared", "-fPIC", f"-I{guest}", folder / "stand_in.c", guest / "shadow/reach.c"
    )
    return folder / "reach.so"


@pytest.fixture(name="reach")
def _reach(library: Path) -> Reach:
    return Reach(library)


def test_pieces_that_touch_or_overlap_are_one(reach: Reach) -> None:
    reach.add(100, 10)
    reach.add(200, 10)
    assert reach.pieces == [(100, 110), (200, 210)]
    reach.add(110, 5)
    reach.add(195, 5)
    assert reach.pieces == [(100, 115), (195, 210)]
    reach.add(100, 15)
    assert reach.pieces == [(100, 115), (195, 210)]
    reach.add(50, 400)
    assert reach.pieces == [(50, 450)]


@pytest.mark.parametrize(
    ("access", "is_written"),
    [
        (0, False),
        (_REMOTE_READ, False),
        (_LOCAL_WRITE, True),
        (_REMOTE_WRITE | _LOCAL_WRITE, True),
        (_REMOTE_ATOMIC, True),
        (_MW_BIND, True),
        (_LOCAL_WRITE | _ON_DEMAND, False),  # there the kernel sees it
    ],
)
def test_only_what_devices_may_write_to_is_kept(reach: Reach, access: int, *, is_written: bool) -> None:
    reach.add(4096, 4096, access)
    assert reach.pieces == ([(4096, 8192)] if is_written else [])


def test_nothing_and_everything(reach: Reach) -> None:
    reach.add(4096, 0)
    assert reach.pieces == []
    reach.add(4096, (1 << 64) - 1)
    assert reach.pieces == [(4096, (1 << 64) - 1)]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_left_out_when_there_are_more_pieces_than_places(reach: Reach, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (it is to be the same each time)
    added = []
    for _ in range(4000):
        start, length = chance.randrange(1 << 32), chance.randrange(1, 1 << 14)
        reach.add(start, length)
        added.append((start, start + length))
    found = reach.pieces
    assert len(found) < _MOST
    assert found == sorted(found)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(found))
    for start, end in added:
        assert any(low <= start and end <= high for low, high in found)
    # What is between pieces and was joined is what was nearest: most of the gaps are still there.
    assert sum(high - low for low, high in found) < 1 << 31
