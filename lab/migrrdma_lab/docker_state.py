"""The state of a Docker that has loaded the container images: every node of either rack begins with it.

It is made once, by the node release's own Docker, on this machine's kernel and with no container started: emulated,
the loading alone took longer than a node's boot. The daemon runs in namespaces of its own over the built file system,
and whatever it starts ends with them.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .bootstrap import recipe_key
from .container_images import (
    APPLICATION_IMAGES,
    application_archive,
    application_path,
    archive_path,
    container_archive,
)
from .filesystem import build_node_root, node_root
from .plan import RELEASES, Places
from .steps import run_logged, step

_LOAD_SECONDS = 300

_LOAD = """
scratch=$1 debian=$2 storage=$3
shift 3
mount -t tmpfs -o mode=755 scratch "$scratch"
root=$scratch/root
mkdir "$scratch/upper" "$scratch/work" "$root"
mount -t overlay -o "lowerdir=$debian,upperdir=$scratch/upper,workdir=$scratch/work" debian "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs run "$root/run"
mkdir -p "$root/var/lib/docker" "$root/run/archives"
mount --bind "$storage" "$root/var/lib/docker"
for archive; do
  touch "$root/run/archives/${archive##*/}"
  mount --bind "$archive" "$root/run/archives/${archive##*/}"
done
cd "$root"
pivot_root . .
umount -l .
ip link set lo up
dockerd --bridge=none --iptables=false --storage-driver=overlay2 &
daemon=$!
# The socket is there before the daemon answers, and neither tells when.
until docker version >/dev/null 2>&1; do
  kill -0 "$daemon"
  sleep 0.1
done
for archive in /run/archives/*; do docker load -i "$archive"; done
kill "$daemon"
wait "$daemon"
"""


@dataclass(frozen=True)
class DockerState:
    """What is in ``/var/lib/docker`` of a Docker that holds the container images and nothing else."""

    directory: Path

    @property
    def state(self) -> Path:
        """Everything but the images' files: small, each node has a copy."""
        return self.directory / "state"

    @property
    def images(self) -> Path:
        """The images' files, a folder for each layer: what nodes can share."""
        return self.directory / "images"


def docker_state(places: Places) -> DockerState:
    """Where the state of a Docker is, or will be, that has loaded every release's container image.

    Those of applications as well where `Places.with_applications` says so.
    """
    archives = [archive_path(places, release).name for release in RELEASES]
    if places.with_applications:
        archives += [application_path(places, image).name for image in APPLICATION_IMAGES]
    return DockerState(
        places.images / f"docker-{places.release.name}-{recipe_key(node_root(places).name, _LOAD, *archives)}"
    )


def build_docker_state(places: Places) -> DockerState:
    """Build (or find) it, and what it is made of: the node's file system and the container images, side by side."""
    built = docker_state(places)
    if built.directory.exists():
        return built
    places.images.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        images = [pool.submit(container_archive, places, release) for release in RELEASES]
        if places.with_applications:
            images += [pool.submit(application_archive, places, image) for image in APPLICATION_IMAGES]
        debian = build_node_root(places)
        archives = [image.result() for image in images]
    with (
        step("loading the container images into a Docker"),
        tempfile.TemporaryDirectory(dir=places.images, prefix=".docker-") as work,
    ):
        scratch, storage, draft = (Path(work) / name for name in ("scratch", "storage", "docker"))
        for folder in (scratch, storage, draft):
            folder.mkdir()
        run_logged(
            ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child",
             "--propagation", "private", "sh", "-euc", _LOAD, "sh", scratch, debian, storage, *archives],
            places.build / "logs" / f"docker-{places.release.name}.log",
            _LOAD_SECONDS,
        )  # fmt: skip
        _take_apart(storage, DockerState(draft))
        draft.rename(built.directory)
    return built


def _take_apart(storage: Path, draft: DockerState) -> None:
    """Of all that a Docker keeps, its images; the files of their layers by themselves."""
    draft.state.mkdir()
    draft.images.mkdir()
    for folder in ("image", "overlay2"):
        (storage / folder).rename(draft.state / folder)
    for layer in (draft.state / "overlay2").iterdir():
        if (layer / "diff").is_dir():
            (layer / "diff").rename(draft.images / layer.name)
            (layer / "diff").mkdir()
    shutil.rmtree(storage)
