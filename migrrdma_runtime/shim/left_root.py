"""The container's root, which a killed restore has left mounted in what the low-level runtime keeps of the container.

For CRIU runc mounts the root once more, as ``criu-root`` among the container's state (``Restore`` in its
libcontainer), and takes it away when CRIU has ended. Killed before that, it leaves the mount, and the next
``runc delete`` goes through it: it deletes every file of the container, fails at the mount point itself, says that it
has succeeded, and leaves a name under which nothing can be started any more.
"""

import os

from migrrdma_runtime.base import unmount
from migrrdma_runtime.shim import lowlevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.shim.argv import Invocation

_NAME = "criu-root"


def detach(invocation: "Invocation", runtime: str) -> None:
    """Unmount it, with what is mounted in it, if the invocation's container has one left."""
    if "/" in invocation.container_id or invocation.container_id in (".", ".."):
        return  # for the low-level runtime to refuse
    root = os.path.join(lowlevel.folder(invocation, runtime), _NAME)
    if os.path.lexists(root):
        unmount.detach(root)
