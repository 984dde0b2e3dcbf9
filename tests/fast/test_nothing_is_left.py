"""A second rack beside the first, of another checkout so to speak, whose owner is killed: nothing of it is left.

And nothing of it is ever seen in this machine's own networks, mounts, cgroups and settings.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from migrrdma_lab.containers import Container
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import DEFAULT_RELEASE, RELEASES, REPOSITORY, SRC, Places
from migrrdma_lab.shell import Shell

_SECOND = Places(RELEASES[DEFAULT_RELEASE], "second")

_OWNER = """
import signal, sys
from migrrdma_lab.namespaces.rack import owned_by_this_process
from migrrdma_lab.plan import DEFAULT_RELEASE, RELEASES, SRC, Places
rack = owned_by_this_process(Places(RELEASES[DEFAULT_RELEASE], "second"))
rack.up([SRC])
print("up", flush=True)
signal.pause()
"""


def _host_state() -> dict[str, set[str]]:
    """What of this machine a rack could change and must not."""

    def said(*command: str) -> set[str]:
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())

    hierarchies = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]
    cgroups = {str(folder) for hierarchy in hierarchies for folder in hierarchy.glob("*/")}
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    settings = {
        f"{path} {Path(path).read_text()}"
        for path in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/core_pattern", "/proc/sys/fs/nr_open",
                     "/proc/sys/kernel/hostname", "/proc/sys/kernel/printk")
    }  # fmt: skip
    return {
        "links": said("ip", "-o", "-br", "link"),
        "routes": said("ip", "-o", "route", "show", "table", "all"),
        "cgroups": cgroups,
        "mounts": mounts,
        "settings": settings,
    }


def _owner() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "lab")}
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    return owner


def _checkpoint_and_restore(node: Shell) -> None:
    """CRIU makes cgroups, in every hierarchy that it sees."""
    container = Container(node, "here-and-back").run()
    container.wait_for_line("^2$")
    container.checkpoint("here")
    container.restore("here")
    container.wait_for_line("^[0-9]+$", after=len(container.lines()))


def test_a_rack_changes_nothing_of_this_machine_and_ends_with_its_owner(rack: FastRack) -> None:
    second = FastRack(_SECOND)
    # What the first has built and installed is the second's, too: hard links, for nobody writes to it.
    second.places.disks.parent.mkdir(parents=True, exist_ok=True)
    if not second.places.disks.exists():
        subprocess.run(["cp", "-al", rack.places.disks, second.places.disks], check=True)
    before = _host_state()
    with _owner() as owner:
        try:
            # Two racks side by side, with the same addresses: they do not see each other.
            for one in (rack, second):
                assert one.shell(SRC).run("hostname").stdout == "src\n"
            assert (
                second.shell(SRC).run("cat", "/etc/machine-id").stdout
                != rack.shell(SRC).run("cat", "/etc/machine-id").stdout
            )
            _checkpoint_and_restore(second.shell(SRC))
            while_up = _host_state()
            keeper = second.keeper.pid
            assert keeper is not None
            ended = os.pidfd_open(keeper)
        finally:
            owner.send_signal(signal.SIGKILL)
    assert select.select([ended], [], [], 60)[0], "the rack's keeper lives on without its owner"
    os.close(ended)
    after = _host_state()
    # The one thing of it that is to be seen.
    while_up["cgroups"] = {
        path for path in while_up["cgroups"] if Path(path).name != second.keeper.cgroup_name
    }
    assert while_up == before
    assert after == before
    second.down()
    assert not second.places.run.exists()
    assert rack.running(SRC)
