"""A CRIU that is killed in the middle of a dump: what it held goes on, and not one system call of it has failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from guest_build import ROOT, compile_c
from migrrdma_lab.errors import RackError
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import SRC
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer
from striking import arm

from migrrdma_runtime.base.fault_points import Action, Moment, name_of

_PROGRAM = "/root/talks-to-itself"
_TICK = r"^tick [0-9]+$"
_KILL = """
for look in $(seq 1000); do if pgrep -x criu >/dev/null; then break; fi; done
sleep "$1"; pkill -KILL -x criu
"""


@pytest.fixture
def talks_to_itself(src: Shell, dst: Shell, tmp_path: Path) -> Iterator[RuntimeContainer]:
    """A container that never stops to read and write its sockets."""
    program = tmp_path / "talks_to_itself"
    compile_c(program, ROOT / "tests/workloads/talks_to_itself.c", "-libverbs", "-pthread")
    container = RuntimeContainer(src, "talks", "10.78.0.171", ["/mnt/talks_to_itself"], [(_PROGRAM, "/mnt")])
    for node in (src, dst):
        node.run("mkdir", "-p", _PROGRAM)
        node.copy(str(program), f":{_PROGRAM}/talks_to_itself")
        container.on(node).remove()
        container.on(node).prepare()
    yield container.run()
    for node in (src, dst):
        container.on(node).remove()


def test_its_sockets_work_on(rack: FastRack, talks_to_itself: RuntimeContainer) -> None:
    container = talks_to_itself
    for _ in range(5):
        _goes_on(container)
        arm(rack, SRC, name_of(Action.PLUGIN_WRITE_FILE, Moment.AFTER), "kill")
        with pytest.raises(RackError, match="checkpoint"):
            container.checkpoint()
    _goes_on(container)


def _goes_on(container: RuntimeContainer) -> None:
    container.wait_for_line(_TICK, after=len(container.lines()))
    assert not [line for line in container.lines() if line.startswith("failed")]


@pytest.mark.parametrize("times", [20, pytest.param(400, marks=pytest.mark.soak)])
def test_it_may_be_killed_at_any_time(
    src: Shell, dst: Shell, talks_to_itself: RuntimeContainer, times: int
) -> None:
    """At times that lie evenly over a dump: it goes on, or was dumped and is restored."""
    container, struck = talks_to_itself, 0
    began = time.monotonic()
    container.checkpoint()  # as long as one takes here and now
    takes = time.monotonic() - began
    container.remove()
    container = container.restore(dst)
    with ThreadPoolExecutor(1) as pool:
        for turn in range(times):
            here, there = (src, dst) if container.shell is src else (dst, src)
            _goes_on(container)
            seconds = f"{takes * turn / times:.4f}"
            kill = pool.submit(here.run, "bash", "-c", _KILL, "kill", seconds, check=False)
            try:
                container.checkpoint()
            except RackError:
                struck += kill.result().returncode == 0
                continue
            kill.result()
            container.remove()
            container = container.restore(there)
    _goes_on(container)
    assert struck
