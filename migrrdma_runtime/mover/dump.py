"""The OCI runtime's ``checkpoint``, run as an engine would: it drains, freezes the container and dumps it.

What was dumped stays, frozen (``MIGRRDMA_MOVE``): until another host is the authority it can be let go on at once.
Before that its memory may be dumped in rounds while it goes on running: each has only what was written to since the one
before (``mover/rounds.py``).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import CheckpointError
from migrrdma_runtime.shim import cut_off, nic_writes, page_marks, processes, silence

ROUNDS = "rounds"
"""Of the images: the folder of the rounds before, each in one of its number, and every one the parent of the next."""

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

    async def dump(self, move: str, only_for: str, folder: Path, *, keeps_tcp: bool, rounds: int = 0) -> None:
        """Dump it into ``folder/images``, of its memory what was written to since the last of so many rounds.

        `CheckpointError`: it goes on as before. It is carried to its end also if this one is cancelled: a runtime that
        is killed leaves more to clean up.
        """
        words = ["--leave-running", *(["--tcp-established"] if keeps_tcp else [])]
        words += [f"--parent-path={ROUNDS}/{rounds}"] if rounds else []
        await self._checkpoint(move, only_for, folder, folder / "images", words)

    async def dump_round(self, move: str, only_for: str, folder: Path, number: int) -> Path:
        """Dump its memory as it is now, or what was written to since the round before; where that is."""
        images = folder / "images" / ROUNDS / str(number)
        images.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        words = ["--pre-dump", *([f"--parent-path=../{number - 1}"] if number > 1 else [])]
        await self._checkpoint(move, only_for, folder, images, words)
        return images

    async def why_no_rounds(self) -> str:
        """Why no part of its memory can go ahead; empty: it can."""
        return await asyncio.to_thread(_why_no_rounds, self.state)

    async def marked(self) -> int:
        """Bytes that a dump would have now: those written to since the last round, and those that are not tracked."""
        return await asyncio.to_thread(_marked, self.state)

    async def _checkpoint(
        self, move: str, only_for: str, folder: Path, images: Path, options: list[str]
    ) -> None:
        (folder / "work").mkdir(mode=0o700, parents=True, exist_ok=True)
        log = folder / "runtime.log"
        words = [self.runtime, "--root", self.root, "--log", str(log), "checkpoint", *options]
        words += [f"--image-path={images}", f"--work-path={folder / 'work'}", self.container]
        process = await asyncio.create_subprocess_exec(
            *words,
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


def _why_no_rounds(state: str) -> str:
    if not page_marks.tracks():
        return "this host's kernel does not track writes (CONFIG_MEM_SOFT_DIRTY)"
    for pid in _members(state):
        if why := nic_writes.why_not_told(pid):
            return why
    return ""


def _members(state: str) -> Iterable[int]:
    first = processes.first_process(state)
    return processes.members(state, first) if first else ()


def _marked(state: str) -> int:
    found = shared = 0
    for pid in _members(state):
        try:
            with page_marks.Pages(pid) as pages:
                for low, high in page_marks.private_mappings(pid):
                    for at in range(low // page_marks.PAGE, high // page_marks.PAGE, page_marks.AT_ONCE):
                        found += pages.marked(at, min(page_marks.AT_ONCE, high // page_marks.PAGE - at))
            shared += page_marks.shared_bytes(pid)
        except OSError:
            continue  # it has ended, or some of its memory has gone
    return found * page_marks.PAGE + shared
