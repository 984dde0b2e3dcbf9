"""The plugin has the runtime watch over CRIU before anything is done to the processes, and goes on if nobody does."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest
from criu_stand_in import StandIn

_READY = [sys.executable, "-c", 'import signal; print("ready", flush=True); signal.pause()']
_UNWATCHED = "does not watch over CRIU"


class _Runtime:
    """The two pipes of one that watches."""

    def __init__(self) -> None:
        self.reading, self.tell = os.pipe()
        self.hear, self.writing = os.pipe()
        self.said = b""

    @property
    def variable(self) -> str:
        return f"{os.getpid()} {self.tell} {self.hear}"

    def answer(self, word: bytes) -> None:
        self.said = os.read(self.reading, 64)
        os.write(self.writing, word) if word else os.close(self.writing)


@pytest.fixture
def runtime() -> Iterator[_Runtime]:
    made = _Runtime()
    yield made
    for handle in (made.reading, made.tell, made.hear):
        os.close(handle)


@pytest.mark.parametrize(("word", "watched"), [(b"\n", True), (b"", False)])
def test_the_runtime_learns_which_process_is_criu(
    criu: StandIn, runtime: _Runtime, word: bytes, watched: bool
) -> None:
    thread = threading.Thread(target=runtime.answer, args=[word])
    thread.start()
    result = criu.dump(*_READY, MIGRRDMA_DEATH_WATCH=runtime.variable)
    thread.join()
    assert int(runtime.said) not in (0, os.getpid())
    assert (_UNWATCHED not in result.stderr) == watched
    assert result.returncode == 0


@pytest.mark.parametrize("variable", ["", "1", "1 2", "0 0 0 0", "a b c", "4194303 1 1", "-1 1 1", "9" * 500])
def test_what_is_no_watch_is_none(criu: StandIn, variable: str) -> None:
    assert criu.dump(*_READY, MIGRRDMA_DEATH_WATCH=variable).returncode == 0


def test_a_pre_dump_does_nothing_that_must_be_taken_back(criu: StandIn, runtime: _Runtime) -> None:
    os.close(runtime.writing)
    assert (
        _UNWATCHED not in criu.dump(*_READY, stage="pre-dump", MIGRRDMA_DEATH_WATCH=runtime.variable).stderr
    )
    assert _UNWATCHED in criu.restore(MIGRRDMA_DEATH_WATCH=runtime.variable).stderr
