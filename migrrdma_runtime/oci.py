"""The OCI runtime: parse the call, step in where RDMA needs it, and become the low-level runtime.

Nearly every call only passes through here, and a ``docker run`` makes five of them, so this module and those
it imports at the top stay small. ``json`` alone costs more than all that a passed-through call does here;
what needs it is imported on the way.
"""

import sys

from migrrdma_runtime.base import config
from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.shim import argv, lowlevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Serve one call. Never returns: the process becomes the low-level runtime, or ends with an exit code."""
    call = argv.parse(sys.argv[1:])
    try:
        settings, broken = config.load()
        runtime = lowlevel.find(settings.runtime)
        if call.container_id:
            if call.command in ("create", "run", "restore"):
                from migrrdma_runtime.shim import prepare as create

                create.prepare(call, settings, broken)
            elif call.command == "exec":
                from migrrdma_runtime.shim import execute

                execute.prepare(call, runtime)
            if call.command in ("checkpoint", "restore"):
                from migrrdma_runtime import checkpoint

                checkpoint.run(call, runtime, settings)
        lowlevel.become(runtime, call.args)
    except MigrRDMAError as error:
        from migrrdma_runtime.shim import runtime_log

        runtime_log.error(call, str(error))
        sys.exit(1)
