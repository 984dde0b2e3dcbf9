"""Builds the software device: a libibverbs with its devices inside, one that asks a daemon, and the daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "device"
STRICT = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")

_TESTS_OWN = "FAKE { global: fake_*; };\n"


def _sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((SOURCES / folder).glob("*.c"))]


def _compile(compiler: Sequence[str], output: Path, *arguments: str | Path) -> None:
    subprocess.run([*compiler, *STRICT, "-o", str(output), *map(str, arguments)], check=True)


def _library(
    compiler: Sequence[str], output: Path, versions: Path, flags: Sequence[str], sources: Sequence[Path]
) -> None:
    _compile(
        compiler, output, *flags, "-fPIC", "-shared", "-fvisibility=hidden", *sources,
        "-Wl,-soname,libibverbs.so.1", f"-Wl,--version-script,{versions}",
    )  # fmt: skip


def build_in_process(
    output: Path,
    *flags: str,
    compiler: Sequence[str] = ("gcc",),
    more: Sequence[Path] = (),
    versions: str = "",
) -> None:
    """A libibverbs whose two devices exist in one process, and do on command what real ones will not.

    ``more`` and ``versions`` add sources, and what they export, to it.
    """
    script = output.with_suffix(".map")
    script.write_text((SOURCES / "verbs" / "libibverbs.map").read_text() + _TESTS_OWN + versions)
    link = [SOURCES / "link" / "local.c", SOURCES / "link" / "fakes.c"]
    _library(compiler, output, script, flags, [*_sources("verbs", "serve", "engine"), *link, *more])


def build_library(output: Path, *flags: str) -> None:
    """A libibverbs that serves its process through the daemon of its host."""
    link = [SOURCES / "link" / name for name in ("remote.c", "socket.c", "heap.c", "leftovers.c")]
    ring = SOURCES / "engine" / "ring.c"
    versions = SOURCES / "verbs" / "libibverbs.map"
    _library(("gcc",), output, versions, flags, [*_sources("verbs"), *link, ring])


def build_tool(output: Path) -> None:
    """The program ``rdma`` of a host."""
    _compile(("gcc",), output, SOURCES / "tools" / "rdma.c")


def build_daemon(output: Path, *flags: str) -> None:
    """The daemon that has the devices of all hosts."""
    _compile(("gcc",), output, *flags, *_sources("daemon", "serve", "engine"))
