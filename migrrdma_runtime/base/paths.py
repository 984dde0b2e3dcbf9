"""Where things live on a host and inside a container.

Plain constants and no import, because the OCI runtime's pass-through path reads them.
"""

CONFIG_FILE = "/etc/migrrdma/config.toml"
"""The configuration; ``$MIGRRDMA_CONFIG`` names another one (tests, a second installation)."""

RUNTIME = "/usr/local/bin/migrrdma-runtime"
"""The OCI runtime as ``migrrdma install`` writes it and Docker's ``daemon.json`` names it: the launcher, a program
in C (``launcher/``), or, where that was not built, the script."""

RUNTIME_NAME = "migrrdma"
"""What engines' configurations call it: ``--runtime=migrrdma``."""

RUNTIME_SCRIPT = "/usr/local/libexec/migrrdma/runtime.py"
"""The script that starts Python for the calls that the launcher does not pass on; it goes by the launcher's own path
(``../libexec/…``)."""

HOOKS_DIR = "/usr/local/libexec/migrrdma/hooks"
"""The OCI hooks, copied from ``hooks/`` by ``migrrdma install``."""

INJECT_GUEST = f"{HOOKS_DIR}/inject-guest"
"""Edits the specs of an engine that runs another runtime than ours (``inject_guest.py``)."""

ENGINE_HOOKS_DIR = "/usr/local/libexec/migrrdma/hooks.d"
"""What tells Podman of it. In a folder of its own, as Podman's build and CRI-O read the usual ones, too, know no stage
*precreate*, and give up over it."""

ENGINE_HOOK = f"{ENGINE_HOOKS_DIR}/inject-guest.json"

PODMAN_CONFIG = "/etc/containers/containers.conf.d/90-migrrdma.conf"
"""What tells Podman of that folder, and of our runtime's name."""

CRIU_PLUGIN = "/usr/local/libexec/migrrdma/migrrdma_plugin.so"
"""Our CRIU plugin; each RDMA container's bundle gets a directory that links to it and to all others."""

AGENT_UNIT = "/etc/systemd/system/migrrdma-agent.service"
"""The agent as a service of systemd's."""

GUEST_DIR = "/var/lib/migrrdma/guest"
"""The guest libraries: ``<build-id>/libmigrrdma.so``, one folder per version, side by side.

CRIU refuses to restore a process whose mapped file differs in size or build-id, so a version stays for as
long as a process or a checkpoint may still use it. ``current`` is a symbolic link to the newest.
"""

STAGED_DIR = "/var/lib/migrrdma/staged"
"""Which checkpoints wait for the next start of a container: a link to each, by that container's id. It outlives a boot:
a container that was to go on must not begin anew."""

DIR_IN_CONTAINER = "/dev/migrrdma"
"""The one folder in which everything of ours is, in a container that holds an RDMA device."""

GUEST_DIR_IN_CONTAINER = f"{DIR_IN_CONTAINER}/guest"
"""Where ``GUEST_DIR`` is bind-mounted, read-only, in a container that holds an RDMA device.

``/dev`` is a tmpfs of every container's own: its mount points can be made whoever the container's root is, and also
where the root file system is read-only; they leave nothing in the user's files; CRIU restores them with the tmpfs. And
whatever puts another ``/dev`` in front of a process takes the RDMA device from it together with the library.
"""

GUEST_LIBRARY = "libmigrrdma.so"

RUN_DIR = "/run/migrrdma"
"""State that ends with the boot: ``containers/<id>/``, what is known of each container."""

RUN_DIR_MODE = 0o711
"""To be passed through, not listed: CRIU mounts the folder below that containers have as their own root, who may be
anybody. What is private in it has a mode of its own. ``containers`` and the folders in it have this mode, too."""

CONTAINERS_DIR = "containers"
"""Below ``run_dir``: a folder for each container, by its id, from its create to its delete."""

AGENT_CONFIG_FILE = "/etc/migrrdma/agent.toml"
"""The agent's configuration, apart from the runtime's, which every container start reads and pays for."""

CONFIG_FILES = (CONFIG_FILE, AGENT_CONFIG_FILE)
"""What the administrator may change: kept by an upgrade and an uninstall if it was changed."""

TLS_DIR = "/etc/migrrdma/tls"
"""``ca.crt``, ``agent.crt`` and ``agent.key``: what proves to other agents which host this is."""

CA_DIR = "/etc/migrrdma/ca"
"""``ca.crt`` and ``ca.key`` of the cluster, on the one machine that issues certificates."""

AGENT_STATE_DIR = "/var/lib/migrrdma/agent"
"""The agent's database. It outlives a boot, as a checkpoint that waits for its restore does."""

GUEST_SOCKET_DIR = "agent"
"""Below the container's folder: the directory that is bind-mounted into it and into no other. A mounted directory shows
the socket that a restarted agent makes; a mounted socket file would be the dead one of its predecessor.

The directory of this name below ``run_dir`` itself is for processes outside containers. Versions before this one
mounted it into all containers."""

GUEST_SOCKET_DIR_MODE = 0o755
"""For every user of the container."""

GUEST_SOCKET_DIR_IN_CONTAINER = f"{DIR_IN_CONTAINER}/agent"
"""Where that directory is mounted (``guest/control/thread.c`` looks there first)."""

GUEST_SOCKET = "guest.sock"

RUNTIME_SOCKET = "agent.sock"
"""Below ``run_dir``, where no container sees it: what the OCI runtime and ``migrrdma status`` talk to."""

MOVER_SOCKET = "mover.sock"
"""Below ``run_dir``, likewise: what the command line and the OCI runtime ask the mover."""

MOVER_UNIT = "/etc/systemd/system/migrrdma-mover.service"
"""The mover as a service of systemd's."""

PLUGIN_IMAGE = "migrrdma.img"
"""In a checkpoint directory: what CRIU's plugin took over. Where it is, the manifest must be as well."""

MANIFEST = "migrrdma.json"
"""In a checkpoint directory: what the checkpoint holds of RDMA, and the token that lets it be restored."""
