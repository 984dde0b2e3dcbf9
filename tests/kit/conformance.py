"""The conformance list, ``tests/device/conformance``: small verbs programs whose printed results are compared.

``results.txt`` beside the programs is what the software device says. What Soft-RoCE says otherwise is in one table of
``docs/device.md``, and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path

from guest_build import ROOT, compile_c

_PROGRAMS = ROOT / "tests" / "device" / "conformance"
_DOCUMENT = ROOT / "docs" / "device.md"
_HEADING = "## Where Soft-RoCE differs"


def build(program: Path) -> None:
    """Compile the list into one program: ``conformance DEVICE``."""
    compile_c(program, *sorted(_PROGRAMS.glob("*.c")), "-libverbs")


def parsed(text: str) -> dict[str, str]:
    """Each case's line by its name."""
    return dict(line.split(": ", 1) for line in text.splitlines() if re.match(r"\w+: ", line))


def software_results() -> dict[str, str]:
    return parsed((_PROGRAMS / "results.txt").read_text())


def soft_roce_differences() -> dict[str, str]:
    """What Soft-RoCE says, of the cases in which it differs."""
    section = _DOCUMENT.read_text().split(_HEADING, 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", section, re.M)
    assert rows, f"no table under {_HEADING!r} in {_DOCUMENT}"
    return dict(rows)


def soft_roce_results() -> dict[str, str]:
    """What Soft-RoCE is expected to say."""
    return software_results() | soft_roce_differences()


def difference(found: dict[str, str], expected: dict[str, str]) -> str:
    """A line for each case that is not as expected; empty if all are."""
    return "\n".join(
        f"{case}: {found.get(case, 'did not run')}\n{' ' * len(case)}  not {expected.get(case, 'expected at all')}"
        for case in sorted(found.keys() | expected.keys())
        if found.get(case) != expected.get(case)
    )
