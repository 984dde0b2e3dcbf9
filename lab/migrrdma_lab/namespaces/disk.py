"""A node's disk: an overlay over the layers that all nodes share, on a tmpfs of its own that can be filled.

Docker, containerd and Podman keep containers' file systems as overlays, which cannot be made on an overlay: their
folders are beside it on the same tmpfs. The layers of Docker's images are mounted there, not copied.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..docker_state import DockerState
from ..errors import MachineError
from ..plan import Node
from .keeping import Keeper

DISK_MIB = 4096
"""How much a node can write; it is memory of this machine, used as it is written to."""

_BESIDE = ("docker", "containerd", "containers")

_MAKE = """
disk=$1 root=$2 lower=$3 size=$4 docker=$5 images=$6
mkdir -p "$disk" "$root"
mount -t tmpfs -o "mode=755,size=$size" rack-disk "$disk"
mkdir "$disk/upper" "$disk/work"
mount -t overlay -o "lowerdir=$lower,upperdir=$disk/upper,workdir=$disk/work" rack-node "$root"
for folder in docker containerd containers; do
  mkdir -p "$disk/$folder" "$root/var/lib/$folder"
  mount --bind "$disk/$folder" "$root/var/lib/$folder"
done
cp -a "$docker/." "$disk/docker"
for layer in "$images"/*; do
  on=$disk/docker/overlay2/$(basename "$layer")/diff
  mount --bind "$layer" "$on"
  mount -o remount,bind,ro "$on"
done
# The binds made before do not show what was mounted below afterwards.
umount "$root/var/lib/docker"
mount --rbind "$disk/docker" "$root/var/lib/docker"
"""

_REMOVE = """
root=$1 disk=$2
! mountpoint -q "$root" || umount -R "$root"
! mountpoint -q "$disk" || umount -R "$disk"
"""

_IDENTIFY = """
root=$1 name=$2 machine_id=$3 address=$4
echo "$name" >"$root/etc/hostname"
echo "$machine_id" >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C "root@$name" -f "$root/etc/ssh/ssh_host_ed25519_key"
"""


@dataclass(frozen=True)
class Disk:
    """The disk of one node; it is there from `make` to `remove`, whether the node runs or not."""

    keeper: Keeper
    node: Node

    @property
    def _home(self) -> Path:
        return self.keeper.base / self.node.name

    @property
    def root(self) -> Path:
        """The node's file system, as the rack sees it."""
        return self._home / "root"

    @property
    def storage(self) -> Path:
        """What the node has written, as the rack sees it: its folders are named in `make`."""
        return self._home / "disk"

    def exists(self) -> bool:
        """Whether `make` has been called."""
        return self.keeper.outside(self.storage / "upper").exists()

    def make(self, layers: Sequence[Path], docker: DockerState) -> None:
        """Make an empty disk over ``layers``, the uppermost first, with Docker's images."""
        self.keeper.sh(
            _MAKE, self.storage, self.root, ":".join(map(str, layers)), f"{DISK_MIB}m",
            docker.state, docker.images,
        )  # fmt: skip
        self.keeper.sh(_IDENTIFY, self.root, self.node.name, uuid.uuid4().hex, self.node.data_address)

    def remove(self) -> None:
        """Remove the disk with all that is on it."""
        self.keeper.sh(_REMOVE, self.root, self.storage)

    def fill(self) -> None:
        """Make it as small as what is on it: from now on nothing can be written, until `make_room`."""
        used = self._used()
        while True:
            try:
                self._resize(f"{used}")
            except MachineError:
                # The kernel makes it no smaller than what is on it, and a node that runs may have written meanwhile.
                before, used = used, self._used()
                if used <= before:
                    raise
            else:
                return

    def make_room(self) -> None:
        """Undo `fill`."""
        self._resize(f"{DISK_MIB}m")

    def _used(self) -> int:
        where = os.statvfs(self.keeper.outside(self.storage))
        return (where.f_blocks - where.f_bfree) * where.f_frsize

    def _resize(self, size: str) -> None:
        try:
            self.keeper.run("mount", "-o", f"remount,size={size}", self.storage)
        except MachineError as exc:
            raise MachineError(f"{self.node.name}: its disk cannot be made {size} large: {exc}") from exc
