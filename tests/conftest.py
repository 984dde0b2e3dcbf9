"""Options and fixtures that every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from bringing_up import bring_up
from installed import FakeRuntime, Installation
from migrrdma_lab.containers import Container
from migrrdma_lab.namespaces.rack import FastRack, owned_by_this_process
from migrrdma_lab.plan import DEFAULT_RELEASE, DST, PEER, RELEASES, SRC, Places
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell

pytest_plugins = ["tiers"]

# A busy machine takes its time, and how long one example takes is nothing that these tests are about. The same examples
# each time: a change that is being tested is not to fail for what was there before. The soak tries new ones.
hypothesis.settings.register_profile("migrrdma", deadline=None, derandomize=True)
hypothesis.settings.register_profile("soak", deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the long forms of the rack tests")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("soak" if config.getoption("--soak") else "migrrdma")


@pytest.fixture(scope="session")
def fast_rack() -> Iterator[FastRack]:
    """The fast rack, with this working tree's build; it comes to its end with the tests, however they end."""
    rack = owned_by_this_process(Places(RELEASES[DEFAULT_RELEASE], FastRack.kind))
    rack.down()  # one that was left up is another process's
    rack.up()
    yield rack
    rack.down()


@pytest.fixture(scope="session")
def chosen_rack(request: pytest.FixtureRequest) -> Rack:
    """The fast rack unless ``RACK=emulated``: three nodes, up, with this working tree's build."""
    return bring_up(os.environ.get("RACK", FastRack.kind), request)


@pytest.fixture(scope="module")
def src(rack: Rack) -> Shell:
    """A node of the rack that the folder's own conftest brings up; `dst` and `peer` likewise.

    Not of the session: each folder's `rack` is another one, and what a session's fixture once returned it returns to
    every folder.
    """
    return rack.shell(SRC)


@pytest.fixture(scope="module")
def dst(rack: Rack) -> Shell:
    return rack.shell(DST)


@pytest.fixture(scope="module")
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


@pytest.fixture
def installation(tmp_path: Path, request: pytest.FixtureRequest) -> Installation:
    """As ``migrrdma install`` leaves it; a test may ask for both ways into the runtime (``BOTH_WAYS``)."""
    root = tmp_path / "host"
    root.mkdir()
    return Installation(root, with_launcher=getattr(request, "param", "launcher") == "launcher")


@pytest.fixture
def fake_runtime(installation: Installation) -> Callable[[str], FakeRuntime]:
    """Put a fake in the place of the low-level runtime."""

    def make(script: str = "") -> FakeRuntime:
        fake = FakeRuntime(installation.root / "fake-runc", script)
        installation.configure(runtime=fake.path)
        return fake

    return make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long forms out unless they are asked for: not chosen, rather than skipped."""
    if config.getoption("--soak"):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
