"""The tiers of the tests: which folders make one, what it shows, and how long it took.

A pytest plugin, loaded by `tests/conftest.py`. `make test` runs every tier, those side by side that have nothing in
common; the Makefile has a target for each.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Tier:
    """Tests that need the same things and run at about the same speed."""

    name: str
    """As in ``make <name>``."""

    folders: tuple[str, ...]
    """Under ``tests/``."""

    shows: str

    shares: str | None = None
    """What there is one of for its tests and those of every other tier that says the same: one process runs them."""


TIERS = (
    Tier("unit", ("unit",), "each part by itself: no root, no container, no device"),
    Tier(
        "fuzz",
        ("fuzz",),
        "random changes of everything that comes from outside: refused by name, or taken whole",
    ),
    Tier(
        "guest-test",
        ("guest", "workloads", "device"),
        "the guest library under unmodified programs, and the software device they run on",
    ),
    Tier(
        "runtime-test",
        ("lowlevel", "plugin"),
        "the runtime against the real runc and crun, the plugin against a stand-in of CRIU",
        shares="this machine",
    ),
    Tier(
        "fast",
        ("docker", "fast", "apps"),
        "the whole chain at volume: real Docker, runc and CRIU, a software RDMA device",
        shares="this machine",
    ),
    Tier(
        "lab-test",
        ("rack",),
        "the whole chain on real kernel RDMA (Soft-RoCE), the plugin on real device files",
        shares="the emulated rack",
    ),
)
"""In the order in which they run: what fails soon is seen soon."""


_ON_SOFT_ROCE = re.compile(r"\[(.*-)?emulated(-.*)?\]$")
"""Of a test that is run on either rack (`tests/apps`): the one of the emulated rack."""


def tier_of(nodeid: str) -> Tier:
    """The tier of a test; `pytest.UsageError` for one of a folder that belongs to none."""
    path = _TESTS.parent / nodeid.partition("::")[0]
    folder = path.resolve().relative_to(_TESTS).parts[0]
    if _ON_SOFT_ROCE.search(nodeid):
        folder = "rack"
    for tier in TIERS:
        if folder in tier.folders:
            return tier
    raise pytest.UsageError(
        f"tests/{folder} belongs to no tier: add the folder to a tier in {Path(__file__).relative_to(_TESTS.parent)}"
    )


_BUILDING_S = 3600
"""How long the first test of a tier may take at least: it may build the rack from nothing, beside all others."""

_seconds: defaultdict[str, float] = defaultdict(float)
_tests: Counter[str] = Counter()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Run tier after tier, each in the order of its files."""
    order = {tier.name: number for number, tier in enumerate(TIERS)}
    items.sort(key=lambda item: order[tier_of(item.nodeid).name])
    yield  # which of them are run, and how long each may take
    for first in {tier_of(item.nodeid).name: item for item in reversed(items)}.values():
        own = first.get_closest_marker("timeout")
        if own is None or own.args[0] < _BUILDING_S:
            first.add_marker(pytest.mark.timeout(_BUILDING_S), append=False)


class _SharesTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Of pytest-xdist: one process has all tests that share something, and the rest is given to whoever is idle.

    Its own groups (``--dist loadgroup``) are told by what it adds to a test's name, which pytest 9.2 does not show.
    """

    def _split_scope(self, nodeid: str) -> str:
        return tier_of(nodeid).shares or nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _SharesTogether:
    """Have several processes run them (``-n``) without one in another's way."""
    return _SharesTogether(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add one phase of one test to its tier: fixtures count for the tier whose test made them."""
    name = tier_of(report.nodeid).name
    _seconds[name] += report.duration
    _tests[name] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what each tier that ran took, and what it shows."""
    if not _tests:
        return
    terminalreporter.section("time per tier")
    for tier in TIERS:
        if tier.name in _seconds:
            minutes, seconds = divmod(round(_seconds[tier.name]), 60)
            terminalreporter.line(
                f"{minutes:4}:{seconds:02} min  {tier.name:13} {_tests[tier.name]:5} tests: {tier.shows}"
            )
