"""Nothing of the application runs before the commit: its guest's thread alone makes its connections again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from guest_build import ROOT, compile_c
from migrrdma_lab.errors import RackError
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer

_CONFIG = "/etc/migrrdma/config.toml"
_PROGRAM = "/root/lock-holders"
_LOW_LEVEL = "/usr/local/sbin/runc-that-waits"
_BEGUN, _GO = "/root/restore-has-begun", "/root/restore-may-go-on"
_WAITS = f"""#!/bin/sh
case " $* " in *" restore "*) echo >{_BEGUN}; cat {_GO};; esac
exec runc "$@"
"""
_TICK = r"^tick [0-9]+ [0-9.]+$"


@pytest.fixture(autouse=True)
def late(src: Shell, dst: Shell) -> Iterator[None]:
    """Both nodes commit late."""
    before = {node: node.run("cat", _CONFIG).stdout for node in (src, dst)}
    for node, text in before.items():
        node.run("tee", _CONFIG, stdin=text.replace("[criu]", "[criu]\nlate_commit = true").encode())
    yield
    for node, text in before.items():
        node.run("tee", _CONFIG, stdin=text.encode())


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
    command = ["env", "MALLOC_ARENA_MAX=1", "nice", "-n", "19", "/mnt/lock_holders"]
    container = RuntimeContainer(src, "locks", "10.78.0.170", command, [(_PROGRAM, "/mnt")])
    for node in (src, dst):
        node.run("mkdir", "-p", _PROGRAM)
        node.copy(str(program), f":{_PROGRAM}/lock_holders")
        container.on(node).remove()
        container.on(node).prepare()
    yield container
    for node in (src, dst):
        container.on(node).remove()


@pytest.mark.parametrize("moves", [20, pytest.param(200, marks=pytest.mark.soak)])
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
