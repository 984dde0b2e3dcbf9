"""Podman: whether it puts the guest library into containers that it runs with another runtime."""

from __future__ import annotations

import sys

from migrrdma_runtime.base import paths
from migrrdma_runtime.host.check.result import Machine, Result, failure, ok
from migrrdma_runtime.host.install import payload, podman_config
from migrrdma_runtime.host.install.install import is_in_place

_INSTALL = "migrrdma install --engine podman"


def hook(machine: Machine) -> Result:
    """The hook, what describes it and what names its folder are in place, and nothing hides that folder."""
    host = machine.host
    if not host.path(paths.PODMAN_CONFIG).exists():
        return ok(f"Podman has no hook of ours ({_INSTALL})")
    expected = (*payload.load(sys.executable).engine_hook, podman_config.drop_in(host))
    if differing := [file.path for file in expected if not is_in_place(host, file)]:
        return failure(f"missing, of another version, or behind the times: {', '.join(differing)}", _INSTALL)
    if masking := podman_config.masked_by(host):
        return failure(
            f"{masking} sets hooks_dir after {paths.PODMAN_CONFIG}, and Podman does not see the hook",
            f'add "{paths.ENGINE_HOOKS_DIR}" to it there',
        )
    return ok("Podman puts the guest library into containers with an RDMA device, under any runtime")
