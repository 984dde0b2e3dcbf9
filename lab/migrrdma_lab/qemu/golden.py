"""The golden machine: booted once per image, its container images loaded, snapshotted running.

Booting three machines on two emulated cores takes a minute and a half; continuing three copies of a machine
that has booted takes seconds. The snapshot holds QEMU's own state, so it belongs to one QEMU and accelerator.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from ..plan import GOLDEN, Places
from ..steps import step
from . import network
from .acceleration import Accelerator
from .disk import NodeImage
from .emulator import emulator
from .machine import Machine
from .ssh import SshShell

SNAPSHOT = "golden"
_BOOT_SECONDS = 300
_REPORTING_SECONDS = 30
_REPORTING_PERIOD_SECONDS = 2.5


def _wait_for_freed_memory(machine: Machine) -> None:
    """Wait while the guest still reports free pages: what it has reported is not copied three times.

    The kernel reports in batches, two seconds apart (mm/page_reporting.c), and tells nobody when it is done.
    """
    deadline = time.monotonic() + _REPORTING_SECONDS
    before = machine.resident_bytes()
    while time.monotonic() < deadline:
        time.sleep(_REPORTING_PERIOD_SECONDS)
        now = machine.resident_bytes()
        if now >= before:
            return
        before = now


def golden_path(places: Places, image: NodeImage, accelerator: Accelerator) -> Path:
    """Where the golden machine's overlay is, made or not; another QEMU or accelerator has another one."""
    version = emulator(places).version()
    definition = (Path(__file__).parent / "machine.py").read_text()
    runs_on = (accelerator.name, accelerator.qemu_options)  # and not why: that is worded anew every time
    key = hashlib.sha256(f"{version}\0{runs_on}\0{definition}".encode()).hexdigest()[:12]
    return image.directory / f"golden-{key}.qcow2"


def golden_disk(places: Places, image: NodeImage, accelerator: Accelerator) -> Path:
    """Build (or find) the overlay that holds the running golden machine."""
    disk = golden_path(places, image, accelerator)
    if disk.exists():
        return disk
    machine = Machine(places, GOLDEN, image)
    shell = SshShell(places, GOLDEN, image)
    machine.stop()
    try:
        with step("booting the golden machine"):
            machine.create_disk()
            machine.start(accelerator)
            shell.wait(_BOOT_SECONDS, machine.console)
            # Every unit has been started, Docker's among them; a failed one would be in every node.
            shell.run("systemctl", "is-system-running", "--wait", timeout=_BOOT_SECONDS)
        with step("loading the container images into its Docker"):
            for archive in sorted(shell.sh("ls /var/lib/rack/images").stdout.split()):
                shell.run("docker", "load", "-q", "-i", f"/var/lib/rack/images/{archive}", timeout=600)
            # The first container loads a dozen kernel modules and warms the page cache, once for all nodes.
            shell.run(
                "docker", "run", "--rm", f"rdma-tools:{places.release.name}", "ibv_devices", timeout=120
            )
            shell.sh("sync; echo 3 >/proc/sys/vm/drop_caches")
        with step("snapshot of the golden machine"):
            shell.disconnect()
            _wait_for_freed_memory(machine)
            machine.save(SNAPSHOT)
    finally:
        shell.disconnect()
        machine.stop()
        network.forget_neighbour(places, GOLDEN.management_address)
    machine.disk.rename(disk)
    return disk
