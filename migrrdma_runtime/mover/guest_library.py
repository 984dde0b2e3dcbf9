"""The guest library that a container's processes run, brought to a host which has other versions of it.

A process goes on with the very file that it has mapped, by the same path; CRIU compares the build-id. Versions stay
side by side, each in a folder of its build-id, as `migrrdma install` puts them there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from migrrdma_runtime.base import build_id, paths
from migrrdma_runtime.base.errors import AgentError, InstallError
from migrrdma_runtime.wire.mover_messages import CHUNK

_MOST_BYTES = 64 << 20


async def read(guest_dir: Path, version: str) -> AsyncGenerator[bytes, None]:
    """The library, in pieces."""
    path = guest_dir / version / paths.GUEST_LIBRARY
    try:
        image = path.read_bytes()
    except OSError as error:
        raise AgentError(f"{path}: {error.strerror}") from error
    for at in range(0, len(image), CHUNK):
        yield image[at : at + CHUNK]


async def write(guest_dir: Path, version: str, chunks: AsyncIterator[bytes]) -> None:
    """Keep it, if it is what it is called, and none of that name is here; nobody sees a part of it."""
    image = bytearray()
    async for chunk in chunks:
        image += chunk
        if len(image) > _MOST_BYTES:
            raise AgentError(f"a guest library has no more than {_MOST_BYTES >> 20} MiB")
    try:
        found = build_id.read(bytes(image), "what came as a guest library")
    except InstallError as error:
        raise AgentError(str(error)) from error
    if found != version:
        raise AgentError(f"the guest library that came as {version} is {found}")
    draft = guest_dir / f".{version}.partial"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o755, parents=True)
        library = draft / paths.GUEST_LIBRARY
        with library.open("wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        library.chmod(0o755)
        draft.rename(guest_dir / version)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not (guest_dir / version / paths.GUEST_LIBRARY).exists():  # another move has brought it meanwhile
            raise AgentError(f"{error.filename}: {error.strerror}") from error
