"""The rack as fixtures. A rack that does not come up fails the tests; nothing here skips.

A test that fails when the emulator has crashed a node's kernel (`migrrdma_lab.crashes`: by registers that no processor
can have, so not by anything that runs on it) has shown nothing. It is run again, once, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from migrrdma_lab.choice import RACKS, choose_rack
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import DST, NODES, PEER, SRC
from migrrdma_lab.qemu.crashes import emulator_faults
from migrrdma_lab.qemu.rack import EmulatedRack
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the rack's tests time, and leave out those that need what the chosen rack does not offer.

    Docker commands take seconds to tens of seconds in emulation, and the first test builds the rack.
    """
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    offers = choose_rack().offers
    known = frozenset().union(*(rack.offers for rack in RACKS.values()))
    lacking = []
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))
        needs = {need for marker in item.iter_markers("needs") for need in marker.args}
        if needs - known:
            raise pytest.UsageError(
                f"{item.nodeid} needs {', '.join(sorted(needs - known))}, which no rack offers"
            )
        if needs - offers:
            lacking.append(item)
    if lacking:
        config.hook.pytest_deselected(items=lacking)
        items[:] = [item for item in items if item not in lacking]


_BOOT_SECONDS = 300

_known: set[str] = set()
"""Crashes for which a test was run again."""

_again: list[str] = []
"""Such tests."""


def _new_faults() -> set[str]:
    found = set()
    rack = choose_rack()
    if not isinstance(rack, EmulatedRack):
        return set()
    for node in NODES:
        console = rack.machine(node).console
        if console.exists():
            faults = emulator_faults(console.read_text(errors="replace"))
            found |= {f"{node.name} after {fault}" for fault in faults}
    return found - _known


def _wait_for_nodes() -> None:
    """A node that crashed boots by itself, with everything on its disk."""
    rack = choose_rack()
    assert isinstance(rack, EmulatedRack)
    for node in NODES:
        shell = rack.shell(node)
        shell.disconnect()
        shell.wait(_BOOT_SECONDS, rack.machine(node).console)
        shell.run("systemctl", "is-system-running", "--wait", timeout=_BOOT_SECONDS, check=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test; once more, if it failed and the emulator had."""
    if Path(__file__).parent not in item.path.parents:
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    faults = _new_faults() if any(report.failed for report in reports) else set()
    if faults:
        _known.update(faults)
        _again.append(f"{item.nodeid}: {', '.join(sorted(faults))}")
        _wait_for_nodes()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were run again, and why."""
    if _again:
        terminalreporter.section("run again, for the emulator crashed a node")
        for line in _again:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def rack() -> Rack:
    """Three nodes, up, with this working tree's build."""
    rack = choose_rack()
    rack.up()
    rack.install()
    _known.update(_new_faults())  # from before
    return rack


@pytest.fixture(scope="session")
def src(rack: Rack) -> Shell:
    return rack.shell(SRC)


@pytest.fixture(scope="session")
def dst(rack: Rack) -> Shell:
    return rack.shell(DST)


@pytest.fixture(scope="session")
def peer(rack: Rack) -> Shell:
    return rack.shell(PEER)


@pytest.fixture
def containers() -> Iterator[Callable[[Container], Container]]:
    """Register a container for removal after the test, on whichever node it is."""
    made: list[Container] = []

    def register(container: Container) -> Container:
        container.remove()  # what a killed test run left behind
        made.append(container)
        return container

    yield register
    for container in made:
        container.remove()
