"""An image's archive, as ``docker save`` and ``podman save`` write it, changed while it passes by.

It is a tar with a file for each layer, one for the image's configuration, and ``manifest.json`` with the names. Layers
are large: no more than a piece of one is in memory.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Collection, Iterator
from typing import IO, Any

from migrrdma_runtime.base.errors import EngineError

_PIECE = 1 << 20
_MOST = 4 << 20
"""Bytes of a file that is read whole: the names of an image, and what Docker and OCI say of its parts."""
_NAMES = {"io.containerd.image.name", "org.opencontainers.image.ref.name"}
"""Annotations of an OCI index by which an image is named."""
_LAYER = "blobs/sha256/"

Change = Callable[[str, bytes], bytes | None]
"""What a small file becomes; None: it is left out."""


def without_layers(chunks: Iterator[bytes], layers: Collection[str]) -> Iterator[bytes]:
    """Without the files of some layers: ``sha256:…`` of what they hold."""
    names = {_LAYER + one.removeprefix("sha256:") for one in layers}
    return _changed(chunks, lambda name: name in names, {})


def without_names(chunks: Iterator[bytes], names: list[str]) -> Iterator[bytes]:
    """With no name for the image; the names that it had are added to ``names``."""

    def manifest(_name: str, data: bytes) -> bytes:
        images = json.loads(data)
        for one in images:
            names.extend(one.get("RepoTags") or [])
            one["RepoTags"] = None
        return json.dumps(images).encode()

    def index(_name: str, data: bytes) -> bytes:
        whole = json.loads(data)
        for one in whole.get("manifests") or []:
            kept = {key: value for key, value in (one.get("annotations") or {}).items() if key not in _NAMES}
            one["annotations"] = kept
        return json.dumps(whole).encode()

    return _changed(
        chunks, lambda name: name == "repositories", {"manifest.json": manifest, "index.json": index}
    )


def _changed(
    chunks: Iterator[bytes], leave_out: Callable[[str], bool], changes: dict[str, Change]
) -> Iterator[bytes]:
    try:
        with tarfile.open(fileobj=_Reader(chunks), mode="r|") as archive:
            for member in archive:
                if leave_out(member.name):
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None and member.name in changes:
                    yield from _small(member, content, changes[member.name])
                else:
                    yield member.tobuf()
                    yield from _pieces(content)
                    yield bytes(-member.size % tarfile.BLOCKSIZE if content else 0)
        yield bytes(2 * tarfile.BLOCKSIZE)
    except (tarfile.TarError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise EngineError(f"an image's archive cannot be read: {error}") from error


def _small(member: tarfile.TarInfo, content: IO[bytes], change: Change) -> Iterator[bytes]:
    if member.size > _MOST:
        raise ValueError(f"{member.name} has {member.size} bytes")
    changed = change(member.name, content.read())
    if changed is not None:
        member.size = len(changed)
        member.pax_headers = {}
        yield member.tobuf()
        yield changed + bytes(-member.size % tarfile.BLOCKSIZE)


def _pieces(content: IO[bytes] | None) -> Iterator[bytes]:
    while content is not None and (piece := content.read(_PIECE)):
        yield piece


class _Reader(io.RawIOBase):
    """What comes in pieces, as a file that is read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._chunks, None)
            if piece is None:
                return 0
            self._rest = piece
        length = min(len(buffer), len(self._rest))
        buffer[:length] = self._rest[:length]
        self._rest = self._rest[length:]
        return length
