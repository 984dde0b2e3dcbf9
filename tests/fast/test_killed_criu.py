"""A CRIU that is killed in the middle of a dump: what it held goes on, and not one system call of it has failed."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture
def talks_to_itself(src: Shell, tmp_path: Path) -> Iterator[RuntimeContainer]:
    """A container that never stops to read and write its sockets."""
    program = tmp_path / "talks_to_itself"
    compile_c(program, ROOT / "tests/workloads/talks_to_itself.c", "-libverbs", "-pthread")
    container = RuntimeContainer(src, "talks", "10.78.0.171", ["/mnt/talks_to_itself"], [(_PROGRAM, "/mnt")])
    src.run("mkdir", "-p", _PROGRAM)
    src.copy(str(program), f":{_PROGRAM}/talks_to_itself")
    container.remove()
    yield container.prepare().run()
    container.remove()


def test_its_sockets_work_on(rack: FastRack, talks_to_itself: RuntimeContainer) -> None:
    container = talks_to_itself
    for _ in range(5):
        container.wait_for_line(_TICK, after=len(container.lines()))
        arm(rack, SRC, name_of(Action.PLUGIN_WRITE_FILE, Moment.AFTER), "kill")
        with pytest.raises(RackError, match="checkpoint"):
            container.checkpoint()
        container.wait_for_line(_TICK, after=len(container.lines()))
        assert not [line for line in container.lines() if line.startswith("failed")]
