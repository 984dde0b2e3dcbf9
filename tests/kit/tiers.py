"""The tiers of the tests: which folders make one, what it shows, and how long it took.

A pytest plugin, loaded by `tests/conftest.py`. `make test` runs every tier; the Makefile has a target for each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Tier:
    """Tests that need the same things and run at about the same speed."""

    name: str
    """As in ``make <name>``."""

    folders: tuple[str, ...]
    """Under ``tests/``."""

    shows: str


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
    ),
    Tier(
        "fast",
        ("docker", "fast", "apps"),
        "the whole chain at volume: real Docker, runc and CRIU, a software RDMA device",
    ),
    Tier(
        "lab-test",
        ("rack",),
        "the whole chain on real kernel RDMA (Soft-RoCE), the plugin on real device files",
    ),
)
"""In the order in which they run: what fails soon is seen soon."""


def tier_of(path: Path) -> Tier:
    """The tier of a test file; `pytest.UsageError` for a file in a folder that belongs to none."""
    folder = path.resolve().relative_to(_TESTS).parts[0]
    for tier in TIERS:
        if folder in tier.folders:
            return tier
    raise pytest.UsageError(
        f"tests/{folder} belongs to no tier: add the folder to a tier in {Path(__file__).relative_to(_TESTS.parent)}"
    )


_seconds: defaultdict[str, float] = defaultdict(float)
_tests: Counter[str] = Counter()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tier after tier, each in the order of its files."""
    order = {tier.name: number for number, tier in enumerate(TIERS)}
    items.sort(key=lambda item: order[tier_of(item.path).name])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add one phase of one test to its tier: fixtures count for the tier whose test made them."""
    name = tier_of(_TESTS.parent / report.nodeid.partition("::")[0]).name
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
