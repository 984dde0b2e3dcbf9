"""``migrrdma status``: what this host's agent knows of processes and migrations."""

from __future__ import annotations

import json
import time
from typing import Any

import typer

from migrrdma_runtime.base import config
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands.options import AS_JSON, require_root

HELP = """Show this host's agent: the processes with RDMA here, and the migrations it takes part in.

Of each process it is said what would refuse a checkpoint of its container now, if anything would.

\b
Examples:
  sudo migrrdma status
  sudo migrrdma status --json | jq '.migrations[] | select(.state == "parked")'
"""


def ask(command: str, *, objections: bool = False) -> dict[str, Any]:
    """What this host's agent answers; ``command`` is who asks, for the error that root is needed.

    ``objections``: each process has ``reasons``, what would refuse a checkpoint of it; None if it does not answer; and
    there are ``strangers``, processes of containers that use RDMA without the guest library.
    """
    from migrrdma_runtime.wire import runtime_client

    require_root(command)
    configured, broken = config.load()
    if broken:
        raise broken
    with runtime_client.connect(configured.run_dir) as agent:
        found = agent.status()
        if objections:
            objected = agent.objections()
            told = {(one["container"], one["process"]): one["reasons"] for one in objected["guests"]}
            for guest in found["guests"]:
                guest["reasons"] = told.get((guest["container"], guest["process"]))
            found["strangers"] = objected["strangers"]
        return found


def status(as_json: bool = AS_JSON) -> None:
    """Ask the agent and print what it says."""
    found = ask("migrrdma status", objections=True)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    agent_of = found["agent"]
    typer.echo(f"agent {agent_of['name']} at {agent_of['address']}, migrrdma {found['version']}")
    for guest in found["guests"]:
        where = f"container {guest['container']:.12}" if guest["container"] else "no container"
        typer.echo(printable(f"process {guest['pid']} ({guest['command']}), {where}: {guest['state']}"))
        for line in _objections(guest):
            typer.echo(printable(f"  {line}"))
    for one in found["strangers"]:
        typer.echo(printable(f"process {one['pid']} ({one['command']}), container {one['container']:.12}"))
        typer.echo(printable(f"  would refuse a checkpoint: {one['reason']}"))
    for one in found["migrations"]:
        typer.echo(printable(_line(one)))


def _objections(guest: dict[str, Any]) -> list[str]:
    if guest["reasons"] is None:
        return [] if guest["state"] != "running" else ["does not answer: is it stopped?"]
    return [f"would refuse a checkpoint: {reason}" for reason in guest["reasons"]]


def _line(one: dict[str, Any]) -> str:
    state = f"{one['meaning']} for {ago(one['updated'])}"
    if one["role"] == "source":
        where = f"to {one['holder']['name']}" if one.get("holder") else "checkpoint"
    else:
        where = f"from {one['source']['name']}"
    container = f"container {one['container']:.12} " if one.get("container") else ""
    return f"migration {one['migration']} {where}, {container}as {one['role']}: {state}"


def ago(then: float) -> str:
    """How long ago that was, in the largest unit of which it is one; ``then`` in seconds since 1970."""
    seconds = max(0, int(time.time() - then))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
