"""Which crashes of a node's kernel are the emulator's, by what the console shows of them."""

from __future__ import annotations

import pytest
from migrrdma_lab.qemu.crashes import emulator_faults


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("[ 1588.619927] RSP: 0018:ffffced303797b30 EFLAGS: 03c81602\r", {"1588.619927 s: EFLAGS 03c81602"}),
        ("[ 1654.477667] RSP: 0018:ff59ba5e40003ea0 EFLAGS: c3c82422", {"1654.477667 s: EFLAGS c3c82422"}),
        ("[    3.477667] RSP: 0018:ff59ba5e40003ea0 EFLAGS: 00010286", set()),
        ("[ 3531.850984] RSP: 0000:ffffd53f4223fd20 EFLAGS: 00000246", set()),
        ("[ 1588.612562] BUG: kernel NULL pointer dereference, address: 0000000000000008", set()),
    ],
    ids=["seen", "seen under max", "a bug of the kernel's", "a warning", "another line"],
)
def test_flags_that_no_processor_has_are_the_emulators(line: str, faults: set[str]) -> None:
    assert emulator_faults(f"[ 1.0] before\n{line}\n[ 9999.0] after\n") == faults
