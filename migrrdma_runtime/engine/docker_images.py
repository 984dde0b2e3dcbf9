"""Images of Docker's on their way from one host to another, as ``docker save`` writes them."""

from __future__ import annotations

from collections.abc import Iterator

from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine import archive, docker_description
from migrrdma_runtime.engine.docker import DockerDaemon


def layers(daemon: DockerDaemon, image_id: str) -> list[str]:
    """The digests of an image's layers, the lowest first."""
    image = daemon.image(image_id)
    if image is None:
        raise DockerError(f"there is no image {image_id}")
    return list((image.get("RootFS") or {}).get("Layers") or [])


def layers_here(daemon: DockerDaemon, wanted: list[str]) -> int:
    """How many of an image's layers, from the lowest on, the images that are here have, too.

    Docker knows a layer by itself and all below it; only its own store takes an archive without those that it has.
    """
    if docker_description.store(daemon.info()) != "docker":
        return 0
    most = 0
    for one in {image["Id"] for image in daemon.images()}:
        found = daemon.image(one)
        here = (found or {}).get("RootFS", {}).get("Layers") or []
        pairs = zip(wanted, here, strict=False)
        most = max(most, next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(here))))
    return most


def save(daemon: DockerDaemon, image_id: str, reference: str, without: int) -> Iterator[bytes]:
    """By its name, if that is a name of this image here: then it comes along."""
    named = daemon.image(reference) if reference else None
    by_name = named is not None and named["Id"] == image_id and _is_tag(reference)
    whole = daemon.save(reference if by_name else image_id)
    if not without:
        return whole
    all_layers = layers(daemon, image_id)
    # The same layer may lie upon others once more.
    return archive.without_layers(whole, set(all_layers[:without]) - set(all_layers[without:]))


def load(daemon: DockerDaemon, chunks: Iterator[bytes], image_id: str) -> None:
    """Load it without its name, see that it is the one that was wanted, and name it if nothing is called so here."""
    known = {one["Id"] for one in daemon.images()}
    names: list[str] = []
    daemon.load(archive.without_names(chunks, names))
    if daemon.image(image_id) is None:
        loaded = [one["Id"] for one in daemon.images() if one["Id"] not in known]
        for one in loaded:
            daemon.remove_image(one)
        what = f"{', '.join(loaded)}; it is removed again" if loaded else "nothing new"
        raise DockerError(f"what was loaded is not image {image_id} but {what}")
    if len(names) == 1 and daemon.image(names[0]) is None:
        daemon.tag(image_id, names[0])


def _is_tag(reference: str) -> bool:
    """A name that a loaded image can have: neither an ID nor a digest."""
    return "@" not in reference and not reference.startswith("sha256:")
