"""``migrrdma inspect``: what a process with RDMA is doing, also if it does not answer its agent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from migrrdma_runtime.base.errors import DockerError, InspectionError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands.options import AS_JSON, require_root
from migrrdma_runtime.inspection.process import Process, look_into

HELP = """Look into a process from outside: the state of its guest library, its queue pairs, and where each thread is.

It works without the agent and without an answer of the process, and disturbs neither: nothing is attached to or
stopped. What is shown may have changed while it was read.

\b
Examples:
  sudo migrrdma inspect 4711                the process with this number
  sudo migrrdma inspect web                 every process with the guest library in Docker's container of this name
  sudo migrrdma inspect web --json | jq '.[].stall'
"""

_WHOM = typer.Argument(..., metavar="CONTAINER|PID", help="A process's number, or a container's name or id.")


def inspect(whom: str = _WHOM, as_json: bool = AS_JSON) -> None:
    """Look, and print what is found."""
    require_root("migrrdma inspect")
    found = [look_into(int(whom))] if whom.isdecimal() else list(_in_container(whom))
    if as_json:
        typer.echo(json.dumps([{**asdict(one), "stall": one.stall()} for one in found], indent=2))
        return
    for one in found:
        for line in _lines(one):
            typer.echo(printable(line))


def _lines(process: Process) -> Iterator[str]:
    if not process.state:
        yield f"process {process.pid}: no guest library"
    else:
        yield f"process {process.pid}: {process.state}"
    if stall := process.stall():
        yield f"  what it waits for: {stall}"
    for reason in process.reasons:
        yield f"  cannot be migrated: {reason}"
    for pair in process.queue_pairs:
        yield f"  {pair}"
    for thread in process.threads:
        yield f"  {thread}"


def _in_container(name: str) -> Iterator[Process]:
    """Every process of it that has the guest library."""
    container = _id_of(name)
    inside = [pid for pid in _pids() if container in _cgroup(pid)]
    if not inside:
        raise InspectionError(f"no process runs in a container {name}: give a process's number")
    some = False
    for pid in inside:
        try:
            found = look_into(pid)
        except InspectionError:
            if not Path(f"/proc/{pid}").exists():
                continue  # it has ended since
            raise
        if found.state:
            some = True
            yield found
    if not some:
        raise InspectionError(
            f"no process of container {name} has the guest library: was it started with --runtime=migrrdma?"
        )


def _id_of(name: str) -> str:
    """The container's id by its engine's word; a long id needs no engine."""
    if len(name) == 64 and all(digit in "0123456789abcdef" for digit in name):
        return name
    from migrrdma_runtime.engine.docker import DockerDaemon

    try:
        return DockerDaemon().container(name).id
    except DockerError as error:
        raise InspectionError(
            f"{error}; a process's number or a container's whole id needs no Docker"
        ) from error


def _pids() -> list[int]:
    return sorted(int(one) for one in os.listdir("/proc") if one.isdecimal())  # noqa: PTH208 (numbers only)


def _cgroup(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text(errors="replace")
    except OSError:
        return ""
