"""Crashes of a node's kernel that no processor could have had: the emulator's."""

from __future__ import annotations

import re

_RESERVED_FLAGS = 0xFFC0_8028
"""Bits of EFLAGS that are zero in every x86 processor: Intel SDM, volume 1, figure 3-8."""

_FLAGS = re.compile(r"^\[ *([0-9.]+)\] RSP: .* EFLAGS: ([0-9a-f]{8})$", re.MULTILINE)


def emulator_faults(console: str) -> set[str]:
    """The crashes of this kind in what a node's console shows, each named by its time and flags.

    QEMU 7.2 now and then hands an interrupted kernel another flags register than the one that it took: with the
    direction flag set, the next ``rep stos`` clears what lies below. The register in the kernel's report tells, for
    the reserved bits are set, too.
    """
    return {
        f"{time} s: EFLAGS {flags}"
        for time, flags in _FLAGS.findall(console.replace("\r", ""))
        if int(flags, 16) & _RESERVED_FLAGS
    }
