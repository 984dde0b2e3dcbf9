"""Where things live on a host and inside a container.

Plain constants and no import, because the OCI runtime's pass-through path reads them.
"""

CONFIG_FILE = "/etc/migrrdma/config.toml"
"""The configuration; ``$MIGRRDMA_CONFIG`` names another one (tests, a second installation)."""

RUNTIME = "/usr/local/bin/migrrdma-runtime"
"""The OCI runtime as ``migrrdma install`` writes it and Docker's ``daemon.json`` names it."""

HOOKS_DIR = "/usr/local/libexec/migrrdma/hooks"
"""The OCI hooks, copied from ``hooks/`` by ``migrrdma install``."""

GUEST_DIR = "/var/lib/migrrdma/guest"
"""The guest libraries: ``<build-id>/libmigrrdma.so``, one folder per version, side by side.

CRIU refuses to restore a process whose mapped file differs in size or build-id, so a version stays for as
long as a process or a checkpoint may still use it. ``current`` is a symbolic link to the newest.
"""

GUEST_DIR_IN_CONTAINER = "/usr/lib/migrrdma"
"""Where ``GUEST_DIR`` is bind-mounted, read-only, in a container that holds an RDMA device."""

GUEST_LIBRARY = "libmigrrdma.so"

RUN_DIR = "/run/migrrdma"
"""State that ends with the boot: ``containers/<id>/``, what is known of each container."""
