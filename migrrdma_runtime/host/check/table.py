"""The checks, in the order in which one would repair what they find."""

from __future__ import annotations

from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.host.check import agent, criu, docker, installation, kernel, packages, podman, rdma
from migrrdma_runtime.host.check.result import Check, Machine, Result, Status, failure

CHECKS: dict[str, Check] = {
    "kernel": kernel.options,
    "criu": criu.version,
    "criu-check": criu.check,
    "dirty-tracking": criu.dirty_tracking,
    "huge-pages": kernel.huge_pages,
    "low-level-runtime": installation.low_level_runtime,
    "docker": docker.daemon,
    "docker-experimental": docker.experimental,
    "docker-start-checkpoint": docker.start_from_checkpoint,
    "docker-runtime": docker.runtime,
    "podman-hook": podman.hook,
    "configuration": installation.configuration,
    "launcher": installation.launcher,
    "hooks": installation.hooks,
    "guest-library": installation.guest_library,
    "ownership": installation.ownership,
    "rdma-devices": rdma.devices,
    "rdma-netns": rdma.netns_mode,
    "rdma-owners": rdma.owners,
    "criu-plugin": installation.criu_plugin,
    "late-commit": criu.late_commit,
    "pyverbs": packages.pyverbs,
    "python-ptrace": packages.python_ptrace,
    "prometheus-client": packages.prometheus_client,
    "agent-certificate": agent.certificate,
    "agent": agent.service,
}
"""The names are part of ``--json``."""


def examine(machine: Machine, check: Check) -> Result:
    """Run one check; one that cannot be carried out is a finding too."""
    try:
        return check(machine)
    except (MigrRDMAError, OSError) as error:
        return failure(f"could not be examined: {error}", "see the reason")


def is_healthy(results: list[Result]) -> bool:
    """Warnings do not count."""
    return all(result.status is not Status.FAILURE for result in results)
