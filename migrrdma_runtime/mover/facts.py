"""What two hosts must have in common for a process of one to go on on the other."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path

from migrrdma_runtime.wire.agent_messages import Message

_CPU_FLAGS = re.compile(r"^(?:flags|Features)\s*:\s*(.*)$", re.MULTILINE)
_VERSION = re.compile(r"Version: ([0-9]+(?:\.[0-9]+)*)")
_MOST_OFF_S = 60
"""By so much two hosts' clocks may differ: certificates, logs and an application's own deadlines go by them."""

_NOT_THE_PROGRAMS = frozenset(
    {
        "constant_tsc",
        "nonstop_tsc",
        "rep_good",
        "nopl",
        "cpuid",
        "hypervisor",
        "tsc_known_freq",
        "arch_capabilities",
    }
)
"""Flags that say something of the processor and not of what a program may use."""


def of_this_host() -> Message:
    """Of the host that a container leaves."""
    return {
        "machine": platform.machine(),
        "flags": sorted(_cpu_flags() - _NOT_THE_PROGRAMS),
        "criu": _criu_version(),
        "time": time.time(),
    }


def obstacles(there: Message) -> list[Message]:
    """What of the facts that another host has told hinders its processes here."""
    found = []
    here = of_this_host()
    if there.get("machine") != here["machine"]:
        found.append(
            (
                f"its processor is a {there.get('machine')}, and the one here a {here['machine']}",
                "choose another host",
            )
        )
        return _listed(found)
    missing = sorted(set(map(str, there.get("flags", []))) - set(here["flags"]) - _NOT_THE_PROGRAMS)
    if missing:
        found.append(
            (
                f"the processor here lacks {', '.join(missing[:8])}{' and more' if len(missing) > 8 else ''}, which "
                "the application may have found there",
                "choose a host with a processor that has them all",
            )
        )
    if _number(str(there.get("criu", ""))) > _number(here["criu"]):
        found.append(
            (
                f"CRIU here is {here['criu'] or 'not installed'}, and {there.get('criu')} there",
                "install the same version of CRIU on both hosts",
            )
        )
    off = time.time() - float(there.get("time", 0))
    if abs(off) > _MOST_OFF_S:
        found.append((f"the clocks differ by {abs(off):.0f} s", "set both by NTP"))
    return _listed(found)


def _listed(found: list[tuple[str, str]]) -> list[Message]:
    return [{"what": what, "remedy": remedy} for what, remedy in found]


def _cpu_flags() -> set[str]:
    try:
        found = _CPU_FLAGS.search(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace"))
    except OSError:
        return set()
    return set(found[1].split()) if found else set()


def _criu_version() -> str:
    try:
        said = subprocess.run(
            ["criu", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    found = _VERSION.search(said.decode(errors="replace"))
    return found[1] if found else ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
