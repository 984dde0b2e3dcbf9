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

from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.fault_points import Action, Moment, name_of

_PROGRAM = "/root/talks-to-itself"
_TICK = r"^tick [0-9]+$"
_WATCHED = name_of(Action.PLUGIN_ASK_WATCH, Moment.AFTER)
_KILL_WHEN_FROZEN = f"""
held={fault_points.FOLDER}/{_WATCHED}{fault_points.HELD}
until [ -e $held ] || [ $SECONDS -gt 60 ]; do sleep 0.01; done
criu=$(pgrep -x criu); rm $held
freezer=/sys/fs/cgroup/runtime-containers/talks/cgroup.freeze
until read -r frozen <$freezer; [ $frozen = 1 ] || [ $SECONDS -gt 60 ]; do :; done
kill -KILL $criu
"""
"""CRIU looks again whether all is frozen after 100 ms: whoever is to see it frozen needs a processor until then."""

_KILL = """
for look in $(seq 1000); do if pgrep -x criu >/dev/null; then break; fi; done
sleep "$1"; shift; pkill -KILL "$@"
"""
_ALL_THAT_IS_CRIU, _IT_ALONE = ("-x", "criu"), ("--oldest", "-f", "^criu: restore")
"""The kernel kills one alone when memory ends; before that title CRIU has children that outlive it, and runc waits."""


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


_RUNNING = "pgrep -c -r R,S,D,T,t talks_to_itself || :"
"""How many live: a zombie is gone, and is the node's first process's to take."""

_LEFT = "grep -o ' [^ ]*criu[^ ]*' /proc/self/mountinfo; find /root /tmp /run -xdev -name '.criu*'"


def _goes_on(container: RuntimeContainer) -> None:
    container.wait_for_line(_TICK, after=len(container.lines()))
    assert not [line for line in container.lines() if line.startswith("failed")]


def test_its_sockets_work_on(rack: FastRack, talks_to_itself: RuntimeContainer) -> None:
    container = talks_to_itself
    for _ in range(5):
        _goes_on(container)
        arm(rack, SRC, name_of(Action.PLUGIN_WRITE_FILE, Moment.AFTER), "kill")
        with pytest.raises(RackError, match="checkpoint"):
            container.checkpoint()
    _goes_on(container)


def test_it_does_not_stay_frozen(rack: FastRack, src: Shell, talks_to_itself: RuntimeContainer) -> None:
    """CRIU freezes the container until it has stopped every process: killed meanwhile, it would have ended for good."""
    container = talks_to_itself
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            _goes_on(container)
            arm(rack, SRC, _WATCHED, "hold")
            kill = pool.submit(src.run, "nice", "-n", "-20", "bash", "-euc", _KILL_WHEN_FROZEN)
            with pytest.raises(RackError, match="checkpoint"):
                container.checkpoint()
            kill.result()
    _goes_on(container)


@pytest.mark.parametrize("times", [10, pytest.param(400, marks=pytest.mark.soak)])
def test_a_restore_may_lose_it_at_any_time(
    src: Shell, dst: Shell, talks_to_itself: RuntimeContainer, times: int
) -> None:
    """What was restored in part is gone, and the checkpoint can be restored again; or all of it was.

    Killed in the milliseconds after it has let go what is committed, it leaves a copy that no engine knows.
    """
    container, struck = talks_to_itself, 0
    container.checkpoint()
    container.remove()
    began = time.monotonic()
    container = container.restore(dst)
    takes = time.monotonic() - began
    with ThreadPoolExecutor(1) as pool:
        for turn in range(times):
            here, there = (src, dst) if container.shell is src else (dst, src)
            _goes_on(container)
            container.checkpoint()
            container.remove()
            seconds = f"{takes * turn / times:.4f}"
            which = _IT_ALONE if turn % 2 else _ALL_THAT_IS_CRIU
            kill = pool.submit(there.run, "bash", "-c", _KILL, "kill", seconds, *which, check=False)
            try:
                moved = container.restore(there)
            except RackError as error:
                struck += kill.result().returncode == 0
                if "is committed" in str(error):
                    there.run("pkill", "-KILL", "-x", "talks_to_itself")
                    container = container.on(there)
                    container.remove()
                    container.run()
                    continue
                assert there.sh(_RUNNING).stdout.strip() == "0"
                container.on(there).remove()
                assert there.sh(_LEFT, check=False).stdout == ""
                moved = container.restore(there)
            kill.result()
            assert there.sh(_RUNNING).stdout.strip() == "1"
            assert here.sh(_RUNNING).stdout.strip() == "0"
            container = moved
    _goes_on(container)
    assert struck
