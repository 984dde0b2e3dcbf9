"""``migrrdma migration adopt``: the way out for a checkpoint whose host is gone for ever."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer

from migrrdma_runtime.base import config
from migrrdma_runtime.base.errors import ManifestError
from migrrdma_runtime.commands.options import AS_JSON, TRUST, require_root
from migrrdma_runtime.criu import cgroup_yard, images
from migrrdma_runtime.wire import agent_messages, manifest, runtime_client

HELP = """Have this host decide about a checkpoint whose own host is gone for ever.

DIR is the checkpoint, or the folder that it is in, on this host or on storage that it shares. The agent of the host
that made a checkpoint grants its restore, so that it is restored once. When that host is lost, this host's agent asks
every partner's agent to take its word instead, and writes its own name into the checkpoint's manifest. It is restored
from DIR then, here or anywhere, as any other; copies made before are of no use any more.

--fenced HOST declares that HOST, by the name in its agent's certificate, is gone: its power is off, and it is not
started again with the checkpoint's application in it. What still answers is refused. Should it come back all the same,
the partners refuse what it has granted, and its agent hears that it was superseded. Of a checkpoint without connections
to other hosts there is no partner who could: your word alone counts.

A partner waits for `deadlines.partner` seconds (900) without a word from that host, and then gives the connections up.

\b
Examples:
  sudo migrrdma migration adopt /shared/before-move --fenced node7
  sudo migrrdma migration adopt /shared --name before-move --fenced node7 --json
  then:  sudo migrrdma checkpoint import --start /shared/before-move web
"""

_DIR = typer.Argument(..., metavar="DIR", help="The checkpoint, or the folder it is in.")
_NAME = typer.Option("", "--name", metavar="NAME", help="Which checkpoint in DIR.")
_FENCED = typer.Option(
    ..., "--fenced", metavar="HOST", help="The host that is gone for ever: the name of its agent."
)


def adopt(
    directory: str = _DIR,
    fenced: str = _FENCED,
    name: str = _NAME,
    trust: str = TRUST,
    as_json: bool = AS_JSON,
) -> None:
    """Read the manifest, have the agent adopt it, and write the one that it has from now on."""
    require_root("migrrdma migration adopt")
    if not re.fullmatch(agent_messages.AGENT_NAME, fenced):
        raise typer.BadParameter(f"{fenced!r} is no name of an agent", param_hint="--fenced")
    cgroup_yard.remove_orphans()  # it may have been restored from there before
    found = images.find(Path(directory), name or None)
    with images.examine(found) as source:
        images.require_owned(source, trust)
        document = manifest.read(str(found), source.handle)
        if document is None:
            raise ManifestError(f"{found} holds nothing of RDMA: it is restored without anybody's word")
        shared, broken = config.load()
        if broken:
            raise broken
        with runtime_client.connect(shared.run_dir) as agent:
            adopted = agent.adopt(document, fenced)
        manifest.write(str(found), adopted, source.handle)
    migration = adopted["migration"]
    if as_json:
        said = {"migration": migration, "checkpoint": str(found), "fenced": fenced, "adopted": True}
        typer.echo(json.dumps(said))
        return
    typer.echo(f"migration {migration} is this host's to decide about, in the place of {fenced}")
    typer.echo(f"Next: restore it from {found}, for example with migrrdma checkpoint import")
