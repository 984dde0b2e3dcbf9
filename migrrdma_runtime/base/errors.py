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
    ├── EngineError           a container engine refused, or knows no such container
    │   └── DockerError       Docker; also: its configuration cannot be edited
    ├── ManifestError         a checkpoint's migrrdma.json is missing, damaged, or of another version
    ├── InspectionError       a process cannot be looked into: it has ended, or is not ours to see
    └── AgentError            an agent could not do its part of a migration
        ├── UnreachableError  it did not answer within the deadline: names the agent and the address
        │   └── AllowanceError  it was asked more than one agent may ask of it: it did nothing, and is to be asked later
        ├── RefusedError      it answered no: not entitled, or too late
        │   ├── BusyError     what it is about takes part in another migration: names it
        │   └── StaleRecordError  an attempt of a migration that a later one has replaced
        ├── GuestError        a process: without the guest library, silent, or not migratable
        │   └── DrainError    its queue pairs did not drain within the deadline: names them
        ├── MessageError      a message that is not what the protocol says: dropped, nothing was done
        ├── CertificateError  no certificate, one that does not fit, or one that cannot be made
        └── StoreError        the agent's state cannot be written: disk full, read-only, of a newer version

Foreign errors (``OSError``, Docker's, CRIU's log) become one of these at one boundary each, ``from exc``.
The message is one line: Docker shows its users one line. The module imports nothing, because the OCI
runtime's pass-through path must stay light.
"""


class MigrRDMAError(Exception):
    """Base of the tree; ``str(error)`` is one line, ready to be shown to a user."""

    answered = False
    """The agent has answered by it; else it is not known what the agent did."""
    released = False
    """The agent has given a restore's claim back, durably: what was restored is to be killed."""


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


class EngineError(MigrRDMAError):
    """A container engine refused, cannot be reached, or knows no such container; in its own words."""


class DockerError(EngineError):
    """Docker refused a request, is not reachable, or its ``daemon.json`` cannot be edited."""


class ManifestError(MigrRDMAError):
    """``migrrdma.json`` of a checkpoint is missing, damaged, or of a version this one does not know."""


class InspectionError(MigrRDMAError):
    """A process cannot be looked into from outside: it has ended, or what it says of itself makes no sense."""


class AgentError(MigrRDMAError):
    """An agent, here or on another host, could not do its part; the message says which and what to do."""


class UnreachableError(AgentError):
    """No answer within the deadline, or no connection; whether the request was carried out is unknown."""


class AllowanceError(UnreachableError):
    """An agent was asked more than another one may ask of it. It did nothing; later it will."""


class RefusedError(AgentError):
    """An agent said no: the caller is not entitled, it is too late, or the object is busy."""


class BusyError(RefusedError):
    """A container or a partner takes part in another migration; when that has ended, it may be asked again."""


class StaleRecordError(RefusedError):
    """Something goes on for an attempt that a later attempt of the same migration has replaced; it is to end."""


class GuestError(AgentError):
    """A process with RDMA cannot take part: no guest library, no answer, or objects that cannot be moved."""


class DrainError(GuestError):
    """Queue pairs did not drain within the deadline; the application goes on as before."""


class MessageError(AgentError):
    """A message that is not what the protocol says. It was dropped, and nothing was done."""


class CertificateError(AgentError):
    """A certificate or key is missing, does not fit its purpose, or cannot be made."""


class StoreError(AgentError):
    """The agent's state cannot be read or written."""
