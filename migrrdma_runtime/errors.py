"""Every error this package raises on purpose.

::

    MigrRDMAError             what failed, on which object, why, and what to do about it
    ├── UsageError            the caller asked for something that makes no sense
    ├── ConfigError           /etc/migrrdma/config.toml: names the line and the key
    ├── SpecError             a bundle's config.json (or an exec's process file): names the file and the place
    ├── RuntimeNotFoundError  the low-level runtime is missing: names it and where it was looked for
    ├── CheckpointError       a dump failed: carries the lines of CRIU's log that matter
    ├── RestoreError          a restore failed: likewise
    ├── CheckpointDirError    a checkpoint directory that is incomplete, unsafe or does not fit
    ├── InstallError          the host cannot be changed as asked: not root, not ours, still in use
    └── DockerError           Docker refused, or its configuration cannot be edited

Foreign errors (``OSError``, Docker's, CRIU's log) become one of these at one boundary each, ``from exc``.
The message is one line: Docker shows its users one line. The module imports nothing, because the OCI
runtime's pass-through path must stay light.
"""


class MigrRDMAError(Exception):
    """Base of the tree; ``str(error)`` is one line, ready to be shown to a user."""


class UsageError(MigrRDMAError):
    """The arguments make no sense together, or name something that does not exist."""


class ConfigError(MigrRDMAError):
    """``config.toml`` cannot be used; the message names the file, the line and the key."""


class SpecError(MigrRDMAError):
    """A ``config.json`` or process file cannot be read, parsed or written; names file and place."""


class RuntimeNotFoundError(MigrRDMAError):
    """The low-level runtime (runc, crun, …) is not where it was looked for."""


class CheckpointError(MigrRDMAError):
    """The dump failed; the container goes on as it was."""


class RestoreError(MigrRDMAError):
    """The restore failed; nothing was started."""


class CheckpointDirError(MigrRDMAError):
    """A checkpoint directory is incomplete, holds something unsafe, or does not fit on the disk."""


class InstallError(MigrRDMAError):
    """The host cannot be changed as asked: no permission, something is not ours, or it is still in use."""


class DockerError(MigrRDMAError):
    """Docker refused a request, is not reachable, or its ``daemon.json`` cannot be edited."""
