"""Whether hardware acceleration really works here.

``/dev/kvm`` may open and still be of no use: nested under some hypervisors KVM dies with an internal error
while the kernel unpacks itself. So the answer comes from booting the node's own kernel for a few seconds.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .emulator import Emulator

_PROBE_SECONDS = 20
_KERNEL_RAN = b"VFS: Unable to mount root fs"
"""Without a disk the kernel gets as far as this message, then panics and QEMU ends (`-no-reboot`)."""


@dataclass(frozen=True)
class Accelerator:
    """What runs the machines' instructions; ``reason`` says why not something faster."""

    name: str
    qemu_options: tuple[str, ...]
    reason: str


KVM = Accelerator("kvm", ("-accel", "kvm", "-cpu", "host"), "the kernel boots under it")


def emulation(reason: str) -> Accelerator:
    """QEMU's own translation of the machines' instructions.

    The processor is a plain one: nothing on the nodes needs what ``max`` has beyond it.
    """
    return Accelerator("tcg", ("-accel", "tcg,thread=multi", "-cpu", "Nehalem"), reason)


def choose(emulator: Emulator, kernel: Path, device: Path = Path("/dev/kvm")) -> Accelerator:
    """KVM if ``kernel`` boots under it, else emulation."""
    if not os.access(device, os.R_OK | os.W_OK):
        return emulation(f"{device} cannot be opened")
    command = emulator.system(
        "-machine", "q35", *KVM.qemu_options, "-m", "512", "-nodefaults", "-display", "none",
        "-serial", "stdio", "-no-reboot", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1",
    )  # fmt: skip
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return emulation(f"the kernel did not get to its disk in {_PROBE_SECONDS} s under KVM")
    if _KERNEL_RAN in result.stdout:
        return KVM
    last = (result.stderr or result.stdout).decode(errors="replace").strip().splitlines()[:1]
    return emulation(f"KVM cannot run the kernel: {last[0] if last else 'it ended without a word'}")
