"""Live migration of containers that hold RDMA connections, on a stock Linux.

The package has two faces with opposite needs. The OCI runtime runs on every container start and imports next to
nothing; the command line and the agent import what they like. Its entrances, and what each may use:

``oci.py``           the OCI runtime. It uses checkpoint, restore, shim and base.
``checkpoint.py``    its ``checkpoint``. It uses shim, criu, wire and base.
``restore.py``       its ``restore``. It uses shim, criu, wire and base.
``inject_guest.py``  the edit of a spec as a hook, for engines that run another runtime. It uses shim and base.
``cli.py``           the command line. It uses commands, base and typer.

Every folder says in its docstring what it may use; ``tests/unit/test_rooms.py`` holds all to it.
"""

__version__ = "0.1.0"
