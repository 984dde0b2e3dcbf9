"""What the kernel was built with and how it treats memory."""

from __future__ import annotations

import gzip

from migrrdma_runtime.host.check.result import Machine, Result, failure, ok, warning
from migrrdma_runtime.host.machine import Host

_REQUIRED = (
    "CHECKPOINT_RESTORE",
    "NAMESPACES",
    "UTS_NS",
    "IPC_NS",
    "PID_NS",
    "NET_NS",
    "FHANDLE",
    "EVENTFD",
    "EPOLL",
)
"""CRIU cannot dump any container without these."""

_WANTED = {
    "UNIX_DIAG": "Unix sockets",
    "INET_DIAG": "TCP connections",
    "PACKET_DIAG": "packet sockets",
    "NETLINK_DIAG": "netlink sockets",
    "MEM_SOFT_DIRTY": "pre-copy of memory",
    "INFINIBAND_USER_ACCESS": "RDMA from user space",
}
"""Each is needed for what it says."""


def options(machine: Machine) -> Result:
    """The options that checkpoint and restore need."""
    release = machine.host.read("/proc/sys/kernel/osrelease") or "(release unknown)"
    name, text = _config(machine.host, release)
    if not text:
        return warning(
            f"kernel {release}: its build options were not found",
            f"make one of them readable: {', '.join(_places(release))}",
        )
    built = {line.partition("=")[0] for line in text.splitlines() if line.endswith(("=y", "=m"))}
    missing = [f"CONFIG_{option}" for option in _REQUIRED if f"CONFIG_{option}" not in built]
    if missing:
        return failure(
            f"kernel {release} was built without {', '.join(missing)} (read from {name})",
            "boot a kernel that has them, the distribution's generic one for instance",
        )
    lost = [f"CONFIG_{one} ({what})" for one, what in _WANTED.items() if f"CONFIG_{one}" not in built]
    if lost:
        return warning(
            f"kernel {release} was built without {', '.join(lost)} (read from {name})",
            "boot the distribution's generic kernel if you need them",
        )
    return ok(f"kernel {release} has what checkpoint and restore need (read from {name})")


def huge_pages(machine: Machine) -> Result:
    """Whether memory comes as transparent huge pages, in which dirty tracking misses what a NIC wrote."""
    text = machine.host.read("/sys/kernel/mm/transparent_hugepage/enabled")
    if text is None:
        return ok("no transparent huge pages in this kernel")
    mode = text.partition("[")[2].partition("]")[0] or text
    if mode == "never":
        return ok("transparent huge pages are off")
    return ok(
        f"transparent huge pages: {mode}; a NIC's writes into them escape dirty tracking, "
        "so checkpoint RDMA containers whole, not with --pre-dump"
    )


def _places(release: str) -> list[str]:
    return ["/proc/config.gz", f"/boot/config-{release}", f"/usr/lib/modules/{release}/config"]


def _config(host: Host, release: str) -> tuple[str, str]:
    for name in _places(release):
        try:
            content = host.path(name).read_bytes()
            text = gzip.decompress(content) if name.endswith(".gz") else content
        except (OSError, EOFError):
            continue
        return name, text.decode("utf-8", errors="replace")
    return "", ""
