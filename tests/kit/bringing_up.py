"""A rack for the tests of a folder, by its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrrdma_lab.choice import choose_rack
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.rack import Rack

if TYPE_CHECKING:
    import pytest


def bring_up(kind: str, request: pytest.FixtureRequest) -> Rack:
    """Three nodes, up, with this working tree's build; the fast one comes to its end with the tests."""
    if kind == FastRack.kind:
        fast: FastRack = request.getfixturevalue("fast_rack")
        return fast
    rack = choose_rack(kind=kind)
    rack.up()
    rack.install()
    return rack
