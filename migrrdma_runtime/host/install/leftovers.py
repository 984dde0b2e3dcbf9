"""What an install or uninstall that was killed half-way has left: drafts, under names that only we give.

Every file is written under a hidden name and renamed, so a kill leaves the old file, the new one, or the old one
and a draft. The next install or uninstall, whichever it is, takes the draft away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.files import draft_of
from migrrdma_runtime.host.install.payload import COMPLETIONS
from migrrdma_runtime.host.install.record import FILE, Record
from migrrdma_runtime.host.install.step import Step
from migrrdma_runtime.host.machine import Host


def plan(host: Host, record: Record, docker: Path) -> list[Step]:
    """The steps that clear drafts away; ``docker`` is the ``daemon.json`` itself."""
    drafts = dict.fromkeys(draft for draft in _possible(host, record, docker) if _is_one(draft))
    return [
        Step(host.name(draft), partial(_remove, draft), "removal: left by one that was interrupted")
        for draft in drafts
    ]


def _possible(host: Host, record: Record, docker: Path) -> Iterator[Path]:
    fixed = (
        FILE,
        *paths.CONFIG_FILES,
        paths.RUNTIME,
        paths.RUNTIME_SCRIPT,
        paths.CRIU_PLUGIN,
        paths.AGENT_UNIT,
        paths.MOVER_UNIT,
        paths.ENGINE_HOOK,
        paths.PODMAN_CONFIG,
    )
    for name in (*fixed, *COMPLETIONS.values(), *record.files):
        yield draft_of(host.path(name).resolve())
    yield draft_of(docker)
    guest = host.path(paths.GUEST_DIR)
    yield draft_of(guest / "current")
    yield from sorted(guest.glob(f"*/{draft_of(Path(paths.GUEST_LIBRARY))}"))
    yield from sorted(host.path(paths.HOOKS_DIR).glob(str(draft_of(Path("*")))))


def _is_one(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _remove(draft: Path) -> None:
    draft.unlink(missing_ok=True)
    if draft.parent.parent.name == "guest":  # the folder of a version of the guest library, and none in it
        with suppress(OSError):
            draft.parent.rmdir()
