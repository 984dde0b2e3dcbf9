"""The OCI runtime's ``checkpoint``, run as an engine would: it drains, freezes the container and dumps it.

What was dumped stays, frozen (``MIGRRDMA_MOVE``): until another host is the authority it can be let go on at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import CheckpointError
from migrrdma_runtime.shim import cut_off, silence

_MOVE = "MIGRRDMA_MOVE"


async def wait_for_dump(move: str) -> None:
    """Wait until no runtime dumps for this move any more: an earlier mover may have begun it."""
    mark = f"{_MOVE}={move}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            handle = os.pidfd_open(int(folder.name))
        except OSError:
            continue  # it has ended
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)


@dataclass(frozen=True)
class LowLevel:
    """A container as the OCI runtime knows it: ``root`` is where that keeps its state."""

    root: str
    container: str
    runtime: str = paths.RUNTIME

    @property
    def state(self) -> str:
        """The folder of what it keeps of the container."""
        return f"{self.root}/{self.container}"

    async def dump(self, move: str, only_for: str, folder: Path, *, keeps_tcp: bool) -> None:
        """Dump it into ``folder/images``; `CheckpointError`: it goes on as before.

        It is carried to its end also if this one is cancelled: a runtime that is killed leaves more to clean up.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = folder / "runtime.log"
        words = [self.runtime, "--root", self.root, "--log", str(log), "checkpoint", "--leave-running"]
        words += [f"--image-path={folder / 'images'}", f"--work-path={folder / 'work'}"]
        words += ["--tcp-established"] if keeps_tcp else []
        (folder / "work").mkdir(mode=0o700, exist_ok=True)
        process = await asyncio.create_subprocess_exec(
            *words,
            self.container,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, _MOVE: move, "MIGRRDMA_MOVE_TO": only_for},
            start_new_session=True,
        )
        said = asyncio.ensure_future(process.communicate())
        try:
            _, complaint = await asyncio.shield(said)
        except asyncio.CancelledError:
            await said
            raise
        if process.returncode:
            lines = complaint.decode(errors="replace").splitlines()
            raise CheckpointError(
                lines[0] if lines else f"the runtime ended with {process.returncode}: see {log}"
            )

    async def resume(self) -> None:
        """Let it go on, if it stands still."""
        await _wait_for(sys.executable, "-I", "-m", cut_off.__name__, self.state)
        await self._run("resume")

    async def kill(self) -> None:
        """End it without a word to those whom it has TCP connections to; it stands still, and makes no step more."""
        await _wait_for(sys.executable, "-I", "-m", silence.__name__, self.state)
        await self._run("kill", "KILL")
        await self._run("resume")  # in a freezer of cgroup v1 what is killed does not end

    async def _run(self, subcommand: str, *words: str) -> None:
        await _wait_for(self.runtime, "--root", self.root, subcommand, self.container, *words)


async def _wait_for(*words: str) -> None:
    nowhere = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*words, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    await process.wait()
