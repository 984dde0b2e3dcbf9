"""The OCI runtime: parse the call, step in where RDMA needs it, and become the low-level runtime.

Nearly every call only passes through here, and a ``docker run`` makes five of them, so this module and those
it imports at the top stay small. ``json`` alone costs more than all that a passed-through call does here;
what needs it is imported on the way.
"""

import sys

from migrrdma_runtime.base.config import load as load_config
from migrrdma_runtime.shim import argv, lowlevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Serve one call. Never returns: the process becomes the low-level runtime, or ends with an exit code."""
    invocation = argv.parse(sys.argv[1:])
    try:
        config, broken = load_config()
        runtime = lowlevel.find(config.runtime)
        adopts = False
        if invocation.command in ("create", "run") and invocation.container_id:
            from migrrdma_runtime.shim import staged

            if adopts := staged.is_staged(config, invocation.container_id):
                invocation = staged.as_restore(invocation, config)
        args = invocation.args
        if invocation.container_id:
            if invocation.command in ("create", "run", "restore"):
                from migrrdma_runtime.shim.prepare import prepare_bundle

                prepare_bundle(invocation, config, broken)
            if invocation.command == "exec":
                from migrrdma_runtime.shim.execute import with_guest_library

                args = with_guest_library(invocation, runtime)
            elif invocation.command == "checkpoint":
                from migrrdma_runtime import checkpoint

                checkpoint.run(invocation, runtime, config)
            elif invocation.command == "start":
                from migrrdma_runtime.shim import staged

                staged.start(invocation, runtime, config)
            elif invocation.command == "delete":
                from migrrdma_runtime.shim import left_root

                left_root.detach(invocation, runtime)
            elif invocation.command == "restore":
                from migrrdma_runtime import restore

                restore.run(invocation, runtime, config, adopts=adopts)
        lowlevel.become(runtime, args)
    except Exception as error:
        # Not named above: the classes of all errors would cost every call as much as reading its arguments.
        from migrrdma_runtime.base.errors import MigrRDMAError
        from migrrdma_runtime.shim import runtime_log

        if not isinstance(error, MigrRDMAError):
            raise
        runtime_log.error(invocation, str(error))
        sys.exit(1)
