"""A container goes on from an imported checkpoint at its next plain ``docker start``, on any Docker; and only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from counting import goes_on, numbers
from migrrdma_lab.containers import COUNTER, Container, carry
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_CHECKPOINTS = "/tmp/ck"

_RESTARTED = "until [ $(docker inspect -f '{{.RestartCount}}{{.State.Status}}' staged) = 1running ]; do sleep 0.1; done"


def _dump(source: Container, *, line: str = "^3") -> None:
    source.wait_for_line(line)
    source.shell.run("rm", "-rf", _CHECKPOINTS)
    source.checkpoint("move", "--checkpoint-dir", _CHECKPOINTS)


def _stage(source: Container, destination: Container) -> None:
    destination.shell.run("rm", "-rf", _CHECKPOINTS)
    carry(_CHECKPOINTS, "move", source.shell, destination.shell)
    said = destination.shell.run("migrrdma", "checkpoint", "import", f"{_CHECKPOINTS}/move", destination.name)
    assert f"Next: docker start {destination.name}" in said.stdout


def _begins_anew(container: Container, after: int) -> None:
    """Not counted from the last line: until it ended it may have printed more."""
    container.wait_for_line("^1[^0-9]?$", after=after)
    container.wait_for_line("^3", after=after)
    printed = numbers(container)[after:]
    assert printed[printed.index(1) :][:3] == [1, 2, 3]


def test_the_next_start_goes_on_from_it_and_the_one_after_begins_anew(
    src: Shell, dst: Shell, containers: Register
) -> None:
    source = containers(Container(src, "staged", options=("-t",))).run()
    destination = containers(Container(dst, "staged", options=("-t", "--restart=on-failure"))).create()
    _dump(source)
    _stage(source, destination)
    destination.start()
    goes_on(destination)
    assert numbers(destination)[0] == numbers(source)[-1] + 1
    assert destination.docker("exec", "staged", "sh", "-c", "test -t 0 < /proc/1/fd/0").returncode == 0
    destination.docker("pause", "staged")
    destination.docker("unpause", "staged")
    goes_on(destination)
    destination.docker("stop", "-t", "0", "staged")
    before = len(destination.lines())
    destination.start()
    _begins_anew(destination, before)
    # By the engine itself: it kills the process behind the engine's back.
    before = len(destination.lines())
    pid = destination.docker("inspect", "-f", "{{.State.Pid}}", "staged").stdout.strip()
    dst.run("kill", "-9", pid)
    dst.run("timeout", "60", "sh", "-c", _RESTARTED)
    _begins_anew(destination, before)


def test_by_dockers_own_command_it_goes_on_as_well_and_only_once(
    src: Shell, dst: Shell, containers: Register
) -> None:
    source = containers(Container(src, "staged")).run()
    destination = containers(source.on(dst)).create()
    _dump(source)
    _stage(source, destination)
    destination.restore("move")
    goes_on(destination)
    destination.docker("kill", "staged")
    before = len(destination.lines())
    destination.start()
    _begins_anew(destination, before)


def test_what_was_discarded_begins_anew(src: Shell, dst: Shell, containers: Register) -> None:
    source = containers(Container(src, "staged")).run()
    destination = containers(source.on(dst)).create()
    _dump(source)
    _stage(source, destination)
    dst.run("migrrdma", "checkpoint", "discard", "staged")
    destination.start()
    _begins_anew(destination, 0)


def test_a_start_that_fails_says_why_and_is_tried_again(src: Shell, containers: Register) -> None:
    """A file that the process had open is gone."""
    src.sh("mkdir -p /tmp/bound; echo here > /tmp/bound/needed")
    command = ("sh", "-c", f"exec 3</bound/needed; {COUNTER}")
    counter = containers(Container(src, "staged", command, ("-v", "/tmp/bound:/bound"))).run()
    _dump(counter)
    src.run("migrrdma", "checkpoint", "import", f"{_CHECKPOINTS}/move", "staged")
    src.run("rm", "/tmp/bound/needed")
    with pytest.raises(NodeCommandError) as failure:
        counter.start()
    assert "bound/needed" in failure.value.stderr
    assert not counter.running()
    src.sh("echo here > /tmp/bound/needed")
    counter.start()
    goes_on(counter)
    found = numbers(counter)
    assert found == list(range(1, len(found) + 1))


@pytest.fixture
def slow_state(src: Shell) -> Iterator[None]:
    """A low-level runtime that says what a container is when it is told to, as a ``start`` asks it of one restored."""
    src.sh(_SLOW_STATE)
    yield
    src.sh(f"sed -i '/^runtime = /d' /etc/migrrdma/config.toml; rm -rf {_SLOW}")


_SLOW = "/tmp/slow"

_SLOW_STATE = f"""
rm -rf {_SLOW}; mkdir {_SLOW}; mkfifo {_SLOW}/asked
cat >{_SLOW}/runc <<'END'
#!/bin/sh
case " $* " in *" state "*) echo asked >{_SLOW}/asked; sleep 60;; esac
exec runc "$@"
END
chmod +x {_SLOW}/runc
sed -i '1i runtime = "{_SLOW}/runc"' /etc/migrrdma/config.toml
"""

_KILLED_BEFORE_START = f"""
docker start staged & read -r said <{_SLOW}/asked
pkill -KILL -f "^[^ ]*containerd-shim-runc-v2 .*-id $(docker ps -aq --no-trunc -f name=staged)"
! wait $!
"""


@pytest.mark.usefixtures("slow_state")
def test_a_start_whose_engine_is_killed_after_the_restore_is_tried_again(
    src: Shell, containers: Register
) -> None:
    counter = containers(Container(src, "staged")).run()
    _dump(counter)
    src.run("migrrdma", "checkpoint", "import", f"{_CHECKPOINTS}/move", "staged")
    src.sh(_KILLED_BEFORE_START)
    src.sh("sed -i '/^runtime = /d' /etc/migrrdma/config.toml")
    assert not counter.running()
    before = numbers(counter)
    counter.start()
    counter.wait_for_line("^[0-9]+", after=len(before) + 2)
    assert 1 not in numbers(counter)[len(before) :]


def test_a_checkpoint_that_has_only_the_name_of_one_that_was_staged_is_not_gone_on_from(
    src: Shell, containers: Register
) -> None:
    counter = containers(Container(src, "staged")).run()
    _dump(counter)
    src.run("migrrdma", "checkpoint", "import", f"{_CHECKPOINTS}/move", "staged")
    counter.docker("checkpoint", "rm", "staged", "move")
    before = len(counter.lines())
    counter.start()
    _begins_anew(counter, before)
    counter.checkpoint("move", "--leave-running")
    counter.docker("stop", "-t", "0", "staged")
    before = len(counter.lines())
    counter.start()
    _begins_anew(counter, before)
