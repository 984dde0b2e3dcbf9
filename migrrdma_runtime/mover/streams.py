"""Files on their way to another host: an archive as GNU tar writes it, piece by piece, and what becomes of it there.

tar, because it knows what a writable layer is made of: whiteouts (devices 0/0), opaque folders and capabilities
(extended attributes), hard links, holes. What has changed since the last time ``mover/layer.py`` tells: tar's own
``--listed-incremental`` cannot put a folder where a file was. Debian has tar on every host.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.wire.mover_messages import CHUNK

STALL_S = 60.0
"""A stream of which no byte moves for so long is given up."""

_AS_IT_IS = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse")
_CHANGED = 1
"""tar's exit status when a file has changed while it was read: no matter as long as it is read once more."""


def read_folder(folder: Path, without: str = "") -> AsyncGenerator[bytes, None]:
    """The archive of a folder that nobody changes, but for a folder in it. What is zero is not sent."""
    words = ["tar", "--create", "--file=-", f"--directory={folder}", "--sparse", "--hole-detection=raw"]
    return _output(*words, *([f"--exclude=./{without}"] if without else []), ".")


async def write_folder(folder: Path, chunks: AsyncIterator[bytes]) -> None:
    """Unpack such an archive into a folder, of which nothing of that is there yet."""
    await _input(
        chunks, "tar", "--extract", "--file=-", f"--directory={folder}", "--keep-old-files", "--no-same-owner"
    )


def read_layer(layer: Path) -> AsyncGenerator[bytes, None]:
    """What a container has written; what it changes meanwhile is read once more."""
    words = ["tar", "--create", "--file=-", f"--directory={layer}", *_AS_IT_IS, "."]
    return _output(*words, may_change=True)


def read_files(layer: Path, names: list[str]) -> AsyncGenerator[bytes, None]:
    """Some files and folders of a layer that nobody changes, each by itself."""
    return _output(
        "tar",
        "--create",
        "--file=-",
        f"--directory={layer}",
        *_AS_IT_IS,
        "--no-recursion",
        "--verbatim-files-from",
        "--null",
        "--files-from=-",
        told=b"".join(os.fsencode(one) + b"\0" for one in names),
    )


async def write_layer(layer: Path, chunks: AsyncIterator[bytes]) -> None:
    """Have in a layer what was read of one; folders that are there stay, with what is in them."""
    await _input(
        chunks,
        "tar",
        "--extract",
        "--file=-",
        f"--directory={layer}",
        *_AS_IT_IS[:-1],
        "--same-owner",
        "--same-permissions",
    )


def in_a_thread(chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """The bytes of a stream, for a thread that waits for each piece of them."""

    async def following() -> bytes:
        return await anext(chunks, b"")

    while chunk := asyncio.run_coroutine_threadsafe(following(), loop).result():
        yield chunk


async def from_a_thread(blocks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What another thread reads piece by piece, in pieces that fit into a message."""
    while block := await asyncio.to_thread(next, blocks, b""):
        for at in range(0, len(block), CHUNK):
            yield block[at : at + CHUNK]


def size_of(folder: Path, without: str = "") -> int:
    """Bytes of the files in a folder, on the disk, but for a folder in it."""
    total = 0
    for here, folders, names in os.walk(folder):
        if without in folders:
            folders.remove(without)
        for name in names:
            with suppress(OSError):  # it has gone meanwhile
                total += os.lstat(f"{here}/{name}").st_blocks * 512
    return total


async def _output(*words: str, may_change: bool = False, told: bytes = b"") -> AsyncGenerator[bytes, None]:
    with tempfile.TemporaryFile() as file:
        file.write(told)
        file.seek(0)
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=file,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2 * CHUNK,
        )
    out, err = process.stdout, process.stderr
    if out is None or err is None:
        raise AssertionError("both are pipes")
    said = asyncio.ensure_future(err.read())
    try:
        while chunk := await out.read(CHUNK):
            yield chunk
        status = await process.wait()
        if status and not (may_change and status == _CHANGED):
            raise _failure(words, status, await said)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        said.cancel()


async def _input(chunks: AsyncIterator[bytes], *words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    into, err = process.stdin, process.stderr
    if into is None or err is None:
        raise AssertionError("both are pipes")
    said = asyncio.ensure_future(err.read())
    try:
        try:
            async for chunk in chunks:
                into.write(chunk)
                await into.drain()
            into.close()
            await into.wait_closed()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, and says why
        if status := await process.wait():
            raise _failure(words, status, await said)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        said.cancel()


def _failure(words: tuple[str, ...], status: int, said: bytes) -> AgentError:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    # The last one only says that there were errors before.
    why = lines[-2] if len(lines) > 1 else (lines or [f"exit status {status}"])[0]
    folder = next(word for word in words if word.startswith("--directory=")).partition("=")[2]
    return AgentError(f"{folder}: {why}")
