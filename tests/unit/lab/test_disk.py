"""A disk of the fast rack that is filled while its node writes to it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from migrrdma_lab.errors import MachineError
from migrrdma_lab.namespaces import disk
from migrrdma_lab.namespaces.disk import Disk
from migrrdma_lab.plan import SRC


class Keeper:
    """The kernel, which makes no file system smaller than what is on it."""

    base = Path("/")

    def __init__(self, *used: int) -> None:
        self.used = list(used)
        """What is on it at each look; the last one stays."""
        self.sizes: list[int] = []

    def outside(self, path: Path) -> Path:
        return path

    def look(self, _path: Path) -> Any:
        now = self.used.pop(0) if len(self.used) > 1 else self.used[0]
        return SimpleNamespace(f_blocks=1000, f_bfree=1000 - now, f_frsize=1)

    def run(self, *words: str | Path) -> str:
        self.sizes.append(int(str(words[2]).rpartition("=")[2]))
        if self.sizes[-1] < self.used[0]:
            raise MachineError("mount point not mounted or bad option")
        return ""


def fill(monkeypatch: pytest.MonkeyPatch, keeper: Any) -> None:
    monkeypatch.setattr(disk, "os", SimpleNamespace(statvfs=keeper.look))
    Disk(keeper, SRC).fill()


def test_what_was_written_between_the_look_and_the_change_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeper = Keeper(100, 200)
    fill(monkeypatch, keeper)
    assert keeper.sizes == [100, 200]


def test_what_cannot_be_made_smaller_for_another_reason_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper(100)
    monkeypatch.setattr(keeper, "run", lambda *_: (_ for _ in ()).throw(MachineError("not mounted")))
    with pytest.raises(MachineError, match="not mounted"):
        fill(monkeypatch, keeper)
