"""Nothing of the application runs before the commit: its guest's thread alone makes its connections again."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from guest_build import ROOT, compile_c
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError, RackError
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import DST
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer
from striking import CUT, VICTIMS, arm

from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.fault_points import Action, Moment, name_of

_CONFIG = "/etc/migrrdma/config.toml"
_PROGRAM = "/root/lock-holders"
_LOW_LEVEL = "/usr/local/sbin/runc-that-waits"
_BEGUN, _GO = "/root/restore-has-begun", "/root/restore-may-go-on"
_WAITS = f"""#!/bin/sh
case " $* " in *" restore "*) echo >{_BEGUN}; cat {_GO};; esac
exec runc "$@"
"""
_TICK = r"^tick [0-9]+ [0-9.]+$"


@pytest.fixture
def waits(dst: Shell) -> Iterator[None]:
    """A restore on ``dst`` says when it has been granted, and goes on when it is told."""
    dst.run("tee", _LOW_LEVEL, stdin=_WAITS.encode())
    dst.sh(f"chmod +x {_LOW_LEVEL}; rm -f {_BEGUN} {_GO}; mkfifo {_BEGUN} {_GO}")
    before = dst.run("cat", _CONFIG).stdout
    dst.run("tee", _CONFIG, stdin=f'runtime = "{_LOW_LEVEL}"\n{before}'.encode())
    yield
    dst.run("tee", _CONFIG, stdin=before.encode())


@pytest.fixture
def lock_holders(src: Shell, dst: Shell, tmp_path: Path) -> Iterator[RuntimeContainer]:
    """A container with one arena for all threads, whose threads do nothing but take locks."""
    program = tmp_path / "lock_holders"
    compile_c(program, ROOT / "tests/workloads/lock_holders.c", "-libverbs", "-pthread", "-ldl")
    command = ["env", "MALLOC_ARENA_MAX=1", "nice", "-n", "5", "/mnt/lock_holders"]
    container = RuntimeContainer(src, "locks", "10.78.0.170", command, [(_PROGRAM, "/mnt")])
    for node in (src, dst):
        node.run("mkdir", "-p", _PROGRAM)
        node.copy(str(program), f":{_PROGRAM}/lock_holders")
        container.on(node).remove()
        container.on(node).prepare()
    yield container
    for node in (src, dst):
        container.on(node).remove()


@pytest.mark.parametrize(
    "moves", [10, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])]
)
def test_threads_that_do_nothing_but_hold_locks_are_moved_on_and_on(
    src: Shell, dst: Shell, lock_holders: RuntimeContainer, moves: int
) -> None:
    container = lock_holders.run()
    for turn in range(moves):
        container.wait_for_line(_TICK, after=len(container.lines()))
        container = container.move((dst, src)[turn % 2])
        log = container.restore_log()
        assert "run alone until the restore is committed" in log
        assert log.rstrip().count("migrrdma_plugin: committed") == 1
    container.wait_for_line(_TICK, after=len(container.lines()))
    assert not [line for line in container.lines() if "failed" in line]


@pytest.mark.usefixtures("waits")
def test_a_restore_that_is_refused_has_run_nothing(
    src: Shell, dst: Shell, lock_holders: RuntimeContainer
) -> None:
    container = lock_holders.run()
    container.wait_for_line(_TICK)
    container.checkpoint()
    container.remove()
    there = container.on(dst)
    # The restore is granted; then the agent is gone that alone can commit it.
    with ThreadPoolExecutor(1) as pool:
        restore = pool.submit(container.restore, dst)
        dst.run("cat", _BEGUN)
        src.run("systemctl", "stop", "migrrdma-agent")
        dst.sh(f"echo >{_GO}")
        with pytest.raises(RackError):
            restore.result()
    src.run("systemctl", "start", "migrrdma-agent")
    assert "ended before its first step" in there.restore_log()
    assert [line for line in there.lines() if line.startswith("tick")] == []
    there.remove()
    with ThreadPoolExecutor(1) as pool:
        restore = pool.submit(container.restore, dst)
        dst.run("cat", _BEGUN)
        dst.sh(f"echo >{_GO}")
        restore.result()
    there.wait_for_line(_TICK)


@pytest.fixture
def quiet(
    src: Shell, dst: Shell, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[RuntimeContainer]:
    """A container on its way: its checkpoint is on ``dst``. It has a process with RDMA and a first one without."""
    program = tmp_path / "lock_holders"
    compile_c(program, ROOT / "tests/workloads/lock_holders.c", "-libverbs", "-pthread", "-ldl")
    name = f"held-{zlib.crc32(request.node.name.encode()):08x}"  # one whose checkpoint waits is not made anew
    command = ["sh", "-c", "/mnt/lock_holders quiet & wait"]
    container = RuntimeContainer(src, name, "10.78.0.171", command, [(_PROGRAM, "/mnt")])
    for node in (src, dst):
        node.run("mkdir", "-p", _PROGRAM)
        node.copy(str(program), f":{_PROGRAM}/lock_holders")
        container.on(node).remove()
        container.on(node).prepare()
    container.run()
    container.wait_for_line(_TICK)
    container.checkpoint()
    container.remove()
    yield container.carry_images(dst)
    for node in (src, dst):
        container.on(node).remove()


@contextlib.contextmanager
def _held(rack: FastRack, container: RuntimeContainer, point: str) -> Iterator[Future[RuntimeContainer]]:
    """Its restore, held at this point until this ends."""
    arm(rack, DST, point, "hold")
    held = f"{fault_points.FOLDER}/{point}{fault_points.HELD}"
    with ThreadPoolExecutor(1) as pool:
        restore = pool.submit(container.restore_here)
        container.shell.sh(f"timeout 90 sh -c 'until [ -e {held} ]; do sleep 0.05; done'")
        try:
            yield restore
        finally:
            container.shell.run("rm", "-f", held)


def _can_be_restored_again(container: RuntimeContainer) -> None:
    """Nothing of it has run before, and it runs once after."""
    assert [line for line in container.lines() if line.startswith("tick")] == []
    container.remove()
    container.restore_here()
    container.wait_for_line(_TICK)


_ASKS = name_of(Action.ASK_COMMIT, Moment.BEFORE)
_COMMITTED = name_of(Action.PLUGIN_ASK_COMMIT, Moment.AFTER)
_ONE = """
for pid in $(cat /sys/fs/cgroup/runtime-containers/{name}/cgroup.procs); do
  if [ "$(cat /proc/$pid/comm)" = {comm} ]; then kill -KILL $pid; fi
done
"""


@pytest.mark.parametrize("comm", ["lock_holders", pytest.param("sh", marks=pytest.mark.soak)])
def test_one_that_is_killed_while_all_are_held_costs_nothing(
    rack: FastRack, dst: Shell, quiet: RuntimeContainer, comm: str
) -> None:
    with _held(rack, quiet, _ASKS) as restore:
        dst.sh(_ONE.format(name=quiet.name, comm=comm))
    with pytest.raises(RackError):
        restore.result()
    _can_be_restored_again(quiet)


# What has ended by itself between the look and the kill, as a program that one of them had run, needs none.
_ALL_AT_ONCE = "kill -KILL $(pgrep -f '[/]runtime.py .*restore') $(pgrep -x runc) $(pgrep -x criu) || :"


@pytest.mark.parametrize(
    "kill", [_ALL_AT_ONCE, pytest.param("pkill -KILL -x runc", marks=pytest.mark.soak)], ids=["all", "runc"]
)
def test_what_is_committed_and_held_is_given_back_when_nobody_is_left_to_tell(
    rack: FastRack, dst: Shell, quiet: RuntimeContainer, kill: str
) -> None:
    with _held(rack, quiet, _COMMITTED) as restore:
        dst.sh(kill)
    with pytest.raises(RackError):
        restore.result()
    _can_be_restored_again(quiet)


_TRACES, _LEAVER = "/root/traces", "/root/leaves-traces"
_HEARD, _UNIT = "/root/ticks-heard", "hears-ticks"
_HEARS = f"""
import socket
server = socket.create_server(("10.78.0.13", 7778))
connection, _ = server.accept()
server.close()  # whoever reconnects is refused
with open({_HEARD!r}, "wb", 0) as file:
    while data := connection.recv(4096):
        file.write(data)
"""
_HELD = f"{fault_points.FOLDER}/{_ASKS}{fault_points.HELD}"


@pytest.fixture
def leaver(src: Shell, dst: Shell, peer: Shell, tmp_path: Path) -> Iterator[Container]:
    """Docker's, not running yet; somebody on ``peer`` writes down what it says by TCP."""
    compile_c(tmp_path / "leaves_traces", ROOT / "tests/workloads/leaves_traces.c", "-libverbs")
    options = ("-v", f"{_LEAVER}:/mnt:ro", "-v", f"{_TRACES}:/traces")
    command = ["/mnt/leaves_traces", "/traces/out", "10.78.0.13", "7778"]
    container = rdma.container(src, "traces", command, "10.78.0.172", options)
    for node in (src, dst):
        node.sh(f"rm -rf {_TRACES} {_LEAVER} {rdma.CHECKPOINTS}; mkdir -p {_TRACES} {_LEAVER}")
        node.copy(str(tmp_path / "leaves_traces"), f":{_LEAVER}/leaves_traces")
        container.on(node).remove()
    peer.run("systemd-run", "--collect", f"--unit={_UNIT}", "python3", "-c", _HEARS)
    peer.sh("timeout 300 sh -c 'until ss -Hltn sport = 7778 | grep -q .; do sleep 0.2; done'")
    yield container
    peer.run("systemctl", "stop", _UNIT, check=False)
    for node in (src, dst):
        container.on(node).remove()


def _ticks(shell: Shell, path: str) -> list[int]:
    whole_lines = shell.sh(f"cat {path} 2>/dev/null || :").stdout.split("\n")[:-1]
    return [int(line.split()[1]) for line in whole_lines]


def test_no_timer_no_file_and_no_connection_of_the_application_does_anything_before_the_commit(
    rack: FastRack, src: Shell, dst: Shell, peer: Shell, leaver: Container
) -> None:
    """Moved by docker's commands: refused once, then held at the commit, then let go."""
    there = leaver.on(dst)
    leaver.run().wait_for_line("^tick 50")
    leaver.checkpoint("move", "--checkpoint-dir", rdma.CHECKPOINTS)
    written = src.run("cat", f"{_TRACES}/out").stdout
    dst.run("tee", f"{_TRACES}/out", stdin=written.encode())  # a file of the container's, which comes along
    last = _ticks(src, f"{_TRACES}/out")[-1]

    def has_done_nothing() -> None:
        assert dst.run("cat", f"{_TRACES}/out").stdout == written
        assert _ticks(peer, _HEARD)[-1] <= last

    arm(rack, DST, name_of(Action.TELL_REBUILD, Moment.BEFORE), "error")
    with pytest.raises(NodeCommandError):
        rdma.restore(leaver, dst)
    has_done_nothing()
    # What it had said on the source and nobody had read by then is in the image, and said again.
    assert [line for line in there.lines() if "tick" in line and int(line.split()[1]) > last] == []
    arm(rack, DST, name_of(Action.ASK_COMMIT, Moment.BEFORE), "hold")
    with ThreadPoolExecutor(1) as pool:
        restore = pool.submit(rdma.restore_here, there, "move")
        dst.sh(f"timeout 60 sh -c 'until [ -e {_HELD} ]; do sleep 0.05; done'")
        time.sleep(1)  # a hundred times its timer's interval
        has_done_nothing()  # Docker shows no output of a start that has not ended
        dst.run("rm", _HELD)
        restore.result()
    there.wait_for_line(f"^tick {last + 100}")
    for ticks in (_ticks(dst, f"{_TRACES}/out"), _ticks(peer, _HEARD)):
        assert ticks == list(range(1, ticks[-1] + 1))
    assert _ticks(peer, _HEARD)[-1] > last


@pytest.mark.soak
@pytest.mark.parametrize("who", ["criu", "runtime"])
def test_what_is_held_while_a_restarted_agent_is_in_doubt_is_not_lost_with(
    rack: FastRack, src: Shell, dst: Shell, quiet: RuntimeContainer, who: str
) -> None:
    """The source cannot be reached until whoever holds all, or waits for it, is dead."""
    kill = {"criu": "pkill -KILL -x criu", "runtime": VICTIMS["runtime"]}
    with _held(rack, quiet, _ASKS) as restore:
        src.sh(CUT.format(what="-I"))
        dst.sh(VICTIMS["agent"])
    try:
        dst.sh("timeout 60 sh -c 'until migrrdma status >/dev/null 2>&1; do sleep 0.2; done'")
        dst.sh(kill[who])
    finally:
        src.sh(CUT.format(what="-D"))
    with pytest.raises(RackError):
        restore.result()
    undecided = "migrrdma status --json | grep -q 'state.*commit'"
    dst.sh(f'timeout 60 sh -c "while {undecided}; do sleep 0.2; done"')
    _can_be_restored_again(quiet)


_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	int error = real(clock, now);
	if (clock == CLOCK_BOOTTIME && !access("/root/host-slept", F_OK))
		now->tv_sec += 660;
	return error;
}
"""
_CRIU = "/usr/local/sbin/criu"


@pytest.fixture
def may_sleep(dst: Shell, tmp_path: Path) -> Iterator[None]:
    """CRIU on ``dst`` sees that eleven minutes have passed once a file says so: its host was suspended."""
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(_CLOCK)
    compile_c(library, "-shared", "-fPIC", source, "-ldl")
    dst.copy(str(library), ":/root/clock.so")
    before = dst.run("cat", _CRIU).stdout
    dst.run("tee", _CRIU, stdin=before.replace("LD_PRELOAD=", "LD_PRELOAD=/root/clock.so:").encode())
    dst.run("rm", "-f", "/root/host-slept")
    yield
    dst.run("rm", "-f", "/root/host-slept")
    dst.run("tee", _CRIU, stdin=before.encode())


_ITS_RUNTIME = "kill -KILL $(pgrep -f '[/]runtime.py .*restore') $(pgrep -x runc) || :"


@pytest.mark.usefixtures("may_sleep")
def test_a_criu_that_stood_still_lets_nothing_go_that_runs_elsewhere(
    rack: FastRack, src: Shell, dst: Shell, quiet: RuntimeContainer
) -> None:
    """Its runtime was killed, its claim given back, and the checkpoint restored on another host."""
    with _held(rack, quiet, _COMMITTED) as restore:
        dst.sh(_ITS_RUNTIME)
        with pytest.raises(RackError):
            restore.result()
        undecided = "migrrdma status --json | grep -q 'state.*commit'"
        dst.sh(f'timeout 60 sh -c "while {undecided}; do sleep 0.2; done"')
        again = quiet.on(src)
        again.remove()
        again.restore_here()
        again.wait_for_line(_TICK)
        dst.run("touch", "/root/host-slept")
    dst.sh("timeout 90 sh -c 'while pgrep -x criu >/dev/null; do sleep 0.1; done'")
    assert not dst.sh("pgrep -x -r R,S,D,T,t lock_holders || :").stdout.split()
