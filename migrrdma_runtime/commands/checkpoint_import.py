"""``migrrdma checkpoint import``: have a container go on from a checkpoint that was made on another host.

It is put where dockerd looks for checkpoints of that container, which refuses ``docker start --checkpoint-dir``, and
staged: the next plain ``docker start`` goes on from it, on every Docker (``shim/staged.py``). ``docker start
--checkpoint`` does the same where Docker's own way works.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from migrrdma_runtime.base import config
from migrrdma_runtime.base.errors import EngineError
from migrrdma_runtime.commands.options import AS_JSON, ENGINE, TRUST, require_root
from migrrdma_runtime.criu import cgroup_yard, images, staging
from migrrdma_runtime.criu.images import CheckpointDir
from migrrdma_runtime.engine.engine import Container, Engine
from migrrdma_runtime.engine.find import stopped
from migrrdma_runtime.host.install.docker_config import NAME as RUNTIME_NAME

HELP = """Have a container go on from a checkpoint that was made on another host.

DIR is what "docker checkpoint create --checkpoint-dir DIR" filled there, or one checkpoint in it, copied to
this host by any means. CONTAINER was created here as it was there (same image, command, mounts) and does not
run. Its next start goes on from the checkpoint; migrrdma checkpoint discard has it begin anew instead.
What the container wrote into its own file system is not part of a checkpoint; volumes and bind mounts
must be here as well.

Whatever a checkpoint holds is restored with root's rights. So it is taken only if all of it is root's and nobody
else may write to it; with --trust USER also if it is that user's.

\b
Examples:
  there:  docker checkpoint create --checkpoint-dir /shared web before-move
  here:   docker create --runtime=migrrdma --name web ... nginx
          migrrdma checkpoint import /shared/before-move web
          docker start web
  in one: migrrdma checkpoint import --start /shared/before-move web

\b
Podman, here:
  podman create --runtime=/usr/local/bin/migrrdma-runtime --name web ... nginx
  migrrdma checkpoint import /shared/before-move web && podman start web
"""

_DIR = typer.Argument(..., metavar="DIR", help="The checkpoint, or the folder it is in.")
_CONTAINER = typer.Argument(..., metavar="CONTAINER", help="Name or id of a stopped container.")
_NAME = typer.Option("", "--name", metavar="NAME", help="Which checkpoint in DIR, or what to call it here.")
_FORCE = typer.Option(False, "--force", help="Replace a checkpoint of that name.")
_START = typer.Option(False, "--start", help="Start the container from it.")


def checkpoint_import(
    directory: str = _DIR,
    container: str = _CONTAINER,
    name: str = _NAME,
    force: bool = _FORCE,
    start: bool = _START,
    engine: str = ENGINE,
    trust: str = TRUST,
    as_json: bool = AS_JSON,
) -> None:
    """Examine, copy, say what comes next or do it."""
    require_root("migrrdma checkpoint import")
    cgroup_yard.remove_orphans()  # it may have been restored from there before
    found = images.find(Path(directory), name or None)
    name = name or found.resolve().name
    images.check_name(name)
    with images.examine(found) as source:
        images.require_owned(source, trust)
        owner, target = stopped(container, engine)
        adopts, staged = owner.adopts(target), staged_dir()
        path = owner.place(target, name, staged)
        if not adopts:
            _warn_or_refuse(owner, target, is_of_use=staged not in path.parents)
        with _progress(source) as advance:
            images.copy(source, path, replace=force, progress=advance)
    if adopts and path != staged / target.id:
        _require_still_stopped(owner, target, path)
        staging.stage(staged, target.id, path)
    option = "" if adopts else f"--checkpoint {shlex.quote(name)} "
    command = f"{owner.name} start {option}{shlex.quote(container)}"
    if start:
        try:
            owner.start(target, "" if adopts else name)
        except EngineError as error:
            raise EngineError(
                f"{error}; the checkpoint itself is in place: `{command}` tries again"
            ) from error
    if as_json:
        said = _as_dict(source, target, path, staged=adopts, started=start)
        typer.echo(json.dumps({"engine": owner.name, "checkpoint": name, **said}, indent=2))
        return
    typer.echo(f"imported {name} into {target.name} ({len(source.files)} files, {source.size >> 20} MiB)")
    typer.echo(f"started {target.name} from it" if start else f"Next: {command}")


def staged_dir() -> Path:
    """Where the runtime looks for what is staged; `ConfigError` if its configuration cannot be read."""
    configured, broken = config.load()
    if broken:
        raise broken
    return Path(configured.staged_dir)


def _require_still_stopped(engine: Engine, target: Container, path: Path) -> None:
    """Else the one that runs would be gone on from the checkpoint when it has ended, by its restart policy perhaps."""
    if engine.container(target.id).running:
        raise EngineError(
            f"container {target.name} was started while the checkpoint was copied; that is in place ({path}), and its "
            "next start begins anew all the same: stop it, and import the checkpoint once more with --force"
        )


def _warn_or_refuse(engine: Engine, found: Container, *, is_of_use: bool) -> None:
    """Of a container that another runtime starts: nobody goes on from what is staged for it."""
    said = (
        f"container {found.name} was created with the runtime {found.runtime or 'that is the default'}, not with "
        f"--runtime={RUNTIME_NAME}"
    )
    if not is_of_use:
        raise EngineError(f"{said}: {engine.name} would not go on from the checkpoint")
    print(f"migrrdma: warning: {said}", file=sys.stderr)


@contextmanager
def _progress(source: CheckpointDir) -> Iterator[Callable[[int], None]]:
    """A bar while one waits, on a terminal's stderr only."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:  # rich before 13.4 prints an empty line even for a bar that is disabled
        yield lambda _count: None
        return
    columns = (TextColumn("copying"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, transient=True)
    with bar:
        task = bar.add_task("copying", total=source.size)
        yield lambda count: bar.advance(task, count)


def _as_dict(
    source: CheckpointDir, target: Container, path: Path, *, staged: bool, started: bool
) -> dict[str, object]:
    return {
        "container": target.name,
        "id": target.id,
        "path": str(path),
        "staged": staged,
        "files": len(source.files),
        "bytes": source.size,
        "started": started,
    }
