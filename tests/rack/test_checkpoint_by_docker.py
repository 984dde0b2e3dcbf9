"""Ordinary containers move by Docker's own commands between machines with kernels of their own.

The rest is shown on the fast rack: `tests/docker`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from counting import goes_on, numbers
from migrrdma_lab.containers import COUNTER, Container, carry
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.needs("own-kernel")

Register = Callable[[Container], Container]


def test_a_container_moves_to_another_host(src: Shell, dst: Shell, containers: Register) -> None:
    source = containers(Container(src, "mover")).run()
    destination = containers(source.on(dst)).create()
    source.wait_for_line("^3$")
    src.run("rm", "-rf", "/tmp/ck")
    dst.run("rm", "-rf", "/tmp/ck")
    source.checkpoint("move", "--checkpoint-dir", "/tmp/ck")
    carry("/tmp/ck", "move", src, dst)
    dst.run("migrrdma", "checkpoint", "import", "/tmp/ck/move", "mover")
    destination.restore("move")
    goes_on(destination)
    # Not a number lost, none printed twice.
    assert numbers(destination)[0] == numbers(source)[-1] + 1
    # It is in a cgroup of its own, not in one named after the container that was checkpointed.
    assert (
        f"docker-{destination.full_id()}.scope"
        in dst.sh("cat /proc/$(docker inspect -f '{{.State.Pid}}' mover)/cgroup").stdout
    )
    destination.docker("pause", "mover")
    destination.docker("unpause", "mover")
    goes_on(destination)


def test_when_criu_fails_the_user_sees_why_and_the_containergoes_on(src: Shell, containers: Register) -> None:
    """CRIU cannot dump an open block device, and says so in its log only."""
    command = ("sh", "-c", f"exec 3</dev/vda; {COUNTER}")
    counter = containers(Container(src, "disk", command, ("--device=/dev/vda:/dev/vda:r",))).run()
    counter.wait_for_line("^2$")
    with pytest.raises(NodeCommandError) as failure:
        counter.checkpoint("impossible")
    assert "Can't dump file 3" in failure.value.stderr
    assert "/dev/vda" in failure.value.stderr
    assert failure.value.stderr.count("\n") == 1
    assert counter.running()
    goes_on(counter)
