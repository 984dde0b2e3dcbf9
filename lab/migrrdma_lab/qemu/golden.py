"""The golden disk: a machine booted once per image, its Docker filled with the container images, and shut down.

Every node boots from an overlay on it, and so becomes a machine of its own: boot ID, machine ID, host keys and Docker's
engine ID are made at its first boot, and what the golden machine had of them is removed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..plan import GOLDEN, Places
from ..steps import step
from . import network
from .acceleration import Accelerator
from .disk import NodeImage
from .emulator import emulator
from .machine import Machine
from .ssh import SshShell

_BOOT_SECONDS = 600
_POWER_OFF_SECONDS = 180

_REMOVE_IDENTITY = """
rm -f /etc/ssh/ssh_host_* /var/lib/systemd/random-seed /var/lib/docker/engine-id
: >/etc/machine-id
"""
"""Removed rather than changed; an empty machine-id(5) is filled at the next boot."""


def golden_path(places: Places, image: NodeImage, accelerator: Accelerator) -> Path:
    """Where the golden disk is, made or not; another QEMU, accelerator or processor of this host has another one.

    The nodes' snapshots hold QEMU's state and how fast the processor's counter runs, and `up` compares this name.
    """
    version = emulator(places).version()
    definition = (Path(__file__).parent / "machine.py").read_text()
    runs_on = (accelerator.name, accelerator.qemu_options)  # and not why: that is worded anew every time
    processor = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ][:1]
    key = hashlib.sha256(f"{version}\0{runs_on}\0{processor}\0{definition}".encode()).hexdigest()[:12]
    return image.directory / f"golden-{key}.qcow2"


def golden_disk(places: Places, image: NodeImage, accelerator: Accelerator) -> Path:
    """Build (or find) the golden disk, an overlay on the image's."""
    disk = golden_path(places, image, accelerator)
    if disk.exists():
        return disk
    machine = Machine(places, GOLDEN, image)
    shell = SshShell(places, GOLDEN, image)
    machine.stop()
    try:
        with step("booting the golden machine"):
            machine.create_disk(image.disk, "raw")
            machine.start(accelerator)
            shell.wait(_BOOT_SECONDS, machine.console)
            # Every unit has been started, Docker's among them; a failed one would be in every node.
            shell.run("systemctl", "is-system-running", "--wait", timeout=_BOOT_SECONDS)
        with step("loading the container images into its Docker"):
            for archive in sorted(shell.sh("ls /var/lib/rack/images").stdout.split()):
                shell.run("docker", "load", "-q", "-i", f"/var/lib/rack/images/{archive}", timeout=600)
        with step("shutting the golden machine down"):
            shell.sh(f"systemctl stop docker.socket docker; {_REMOVE_IDENTITY}")
            shell.run("systemctl", "poweroff", "--no-block")
            shell.disconnect()
            machine.wait_for_end(_POWER_OFF_SECONDS)
    finally:
        shell.disconnect()
        machine.stop()
        network.forget_neighbour(places, GOLDEN.management_address)
    machine.disk.rename(disk)
    return disk
