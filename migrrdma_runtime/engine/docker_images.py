"""Images of Docker's on their way from one host to another, as ``docker save`` writes them."""

from __future__ import annotations

from collections.abc import Iterator

from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine.docker import DockerDaemon


def save(daemon: DockerDaemon, image_id: str, reference: str) -> Iterator[bytes]:
    """By its name, if that is a name of this image here: then it comes along."""
    named = daemon.image(reference) if reference else None
    if named is not None and named["Id"] == image_id and _is_tag(reference):
        return daemon.save(reference)
    return daemon.save(image_id)


def load(daemon: DockerDaemon, chunks: Iterator[bytes], image_id: str) -> None:
    """Load, and see that it is the one that was wanted and that every name is still whose it was."""
    before = _names(daemon)
    known = {one["Id"] for one in daemon.images()}
    try:
        daemon.load(chunks)
    finally:
        for name, image in _names(daemon).items():
            if before.get(name, image) != image:
                daemon.tag(before[name], name)
    if daemon.image(image_id) is None:
        loaded = [one["Id"] for one in daemon.images() if one["Id"] not in known]
        for one in loaded:
            daemon.remove_image(one)
        what = ", ".join(loaded) or "nothing new"
        raise DockerError(f"what was loaded is not image {image_id} but {what}; it is removed again")


def _names(daemon: DockerDaemon) -> dict[str, str]:
    return {name: one["Id"] for one in daemon.images() for name in one.get("RepoTags") or []}


def _is_tag(reference: str) -> bool:
    """A name that a loaded image can have: neither an ID nor a digest."""
    return "@" not in reference and not reference.startswith("sha256:")
