"""The container images that every node's Docker carries, from Debian packages; no registry is involved.

An image is a Debian minbase file system with a few packages, put into the archive format that ``docker load`` reads.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from .bootstrap import DEBIAN_SECONDS, LEAN, MMDEBSTRAP, recipe_key
from .plan import (
    APPLICATION_IMAGE,
    APPLICATION_PACKAGES,
    CONTAINER_PACKAGES,
    OLDER_APPLICATION_IMAGE,
    OLDER_APPLICATION_PACKAGES,
    Places,
    container_image,
)
from .steps import run_logged, step


def archive_path(places: Places, release: str) -> Path:
    """Where ``rdma-tools:RELEASE`` is, or will be."""
    return _path(places, container_image(release), release, CONTAINER_PACKAGES)


def container_archive(places: Places, release: str) -> Path:
    """Build (or find) ``rdma-tools:RELEASE`` as an archive for ``docker load``."""
    return _build(places, container_image(release), release, CONTAINER_PACKAGES)


APPLICATION_IMAGES = {
    APPLICATION_IMAGE: APPLICATION_PACKAGES,
    OLDER_APPLICATION_IMAGE: OLDER_APPLICATION_PACKAGES,
}
"""What is in each."""


def application_path(places: Places, image: str) -> Path:
    """Where one of the images of applications is, or will be."""
    return _path(places, image, image.rpartition(":")[2], APPLICATION_IMAGES[image])


def application_archive(places: Places, image: str) -> Path:
    """Build (or find) one of the images of applications as an archive for ``docker load``; only their tests need it."""
    return _build(places, image, image.rpartition(":")[2], APPLICATION_IMAGES[image])


def _path(places: Places, image: str, release: str, packages: Sequence[str]) -> Path:
    return places.images / f"{image.replace(':', '-')}-{recipe_key(release, *packages)}.tar"


def _build(places: Places, image: str, release: str, packages: Sequence[str]) -> Path:
    archive = _path(places, image, release, packages)
    if archive.exists():
        return archive
    with (
        step(f"container image {image} from Debian packages"),
        tempfile.TemporaryDirectory(dir=places.images, prefix=".container-") as work,
    ):
        layer = Path(work) / "layer.tar"
        run_logged(
            [*MMDEBSTRAP, "--variant=minbase", f"--include={','.join(packages)}",
             *LEAN, release, layer],
            places.build / "logs" / f"{archive.stem}.log",
            DEBIAN_SECONDS,
        )  # fmt: skip
        unfinished = Path(work) / "image.tar"
        _write_docker_archive(unfinished, layer, image)
        unfinished.rename(archive)
    return archive


def _write_docker_archive(archive: Path, layer: Path, tag: str) -> None:
    """One layer in the format of ``docker save`` (the "combined image JSON" of moby's image spec v1.2)."""
    with layer.open("rb") as stream:
        diff_id = hashlib.file_digest(stream, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Cmd": ["/bin/sh"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{diff_id}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": [layer_name]}]).encode()
    with tarfile.open(archive, "w") as tar:
        for name, content in ((config_name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
        tar.add(layer, layer_name)
