"""``migrrdma.json``: what a checkpoint holds of RDMA, and the token that lets it be restored.

It is written beside CRIU's images just before the dump, removed if that fails, and read before anything is
restored. Reading and writing is the OCI runtime's business, so nothing heavy is imported; the agent
validates it (manifest_schema.py).
"""

import contextlib
import json
import os
import stat

from migrrdma_runtime.base import paths, strict_json
from migrrdma_runtime.base.errors import ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Manifest = dict[str, Any]

VERSION = 3
MAX_BYTES = 64 << 20


def seal(document: "Manifest") -> "Manifest":
    """Add the version and the digest, which tells a whole manifest from a damaged one."""
    sealed = {"version": VERSION, **document}
    return {**sealed, "digest": _digest(sealed)}


def write(directory: str, document: "Manifest", handle: "int | None" = None) -> None:
    """Put the manifest into a checkpoint directory; it holds a secret and is root's alone.

    ``handle`` is the directory, open: ``directory`` is only its name then, by which another may be found meanwhile.
    """
    path = os.path.join(directory, paths.MANIFEST)
    where = path if handle is None else paths.MANIFEST
    # A name that nobody knows before: what is there already, a link or a file that others hold open, is not ours.
    draft = f"{where}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = False
    try:
        with open(os.open(draft, flags, 0o600, dir_fd=handle), "w", encoding="utf-8") as file:
            made = True
            file.write(json.dumps(document))  # not dump(), which is Python and takes seven times as long
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, where, src_dir_fd=handle, dst_dir_fd=handle)
    except OSError as error:
        if made:
            os.unlink(draft, dir_fd=handle)
        raise ManifestError(f"cannot write {path}: {error.strerror}") from error


def remove(directory: str) -> None:
    """Take the manifest of a dump that failed away: it would make its remains look like a checkpoint."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(directory, paths.MANIFEST))


def read(directory: str, handle: "int | None" = None) -> "Manifest | None":
    """The manifest of a checkpoint; None when it holds nothing of RDMA. ``handle``: as for `write`.

    Raises `ManifestError` for one that is damaged, or missing although the checkpoint holds RDMA.
    """
    path = os.path.join(directory, paths.MANIFEST)
    try:
        # The folder comes from another host: opened to be read, a FIFO would wait for somebody who writes.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        where = path if handle is None else paths.MANIFEST
        with open(os.open(where, flags, dir_fd=handle), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ManifestError(f"{path} is no plain file: copy the checkpoint again")
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if _holds_rdma(directory, handle):
            raise ManifestError(
                f"{path} is missing, and the checkpoint holds RDMA ({paths.PLUGIN_IMAGE}): without it nobody may "
                "restore its connections; copy the checkpoint again, whole"
            ) from None
        return None
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{path} is larger than {MAX_BYTES >> 20} MiB: not a manifest of ours")
    try:
        document = strict_json.parse(content)
    except ValueError as error:
        raise ManifestError(f"{path} is damaged ({error}): copy the checkpoint again") from error
    try:
        check_whole(document)
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from error
    found: Manifest = document
    return found


def _holds_rdma(directory: str, handle: "int | None") -> bool:
    image = paths.PLUGIN_IMAGE if handle is not None else os.path.join(directory, paths.PLUGIN_IMAGE)
    try:
        os.stat(image, dir_fd=handle)
    except OSError:
        return False
    return True


def check_whole(document: object) -> None:
    """Make sure that it is a manifest of a version we know, and that nothing of it has changed."""
    if not isinstance(document, dict) or "version" not in document:
        raise ManifestError("this is no manifest")
    if document["version"] != VERSION:
        raise ManifestError(
            f"version {document['version']!r:.20} of the manifest; this agent knows version {VERSION}: "
            "restore with the migrrdma that made the checkpoint"
        )
    if document.get("digest") != _digest({key: value for key, value in document.items() if key != "digest"}):
        raise ManifestError("the digest does not fit its content: copy the checkpoint again")


def _digest(document: "Manifest") -> str:
    import hashlib

    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
