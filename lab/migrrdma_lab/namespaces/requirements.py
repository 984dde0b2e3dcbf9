"""What the fast rack needs of this machine and its kernel; what is missing is named, with the remedy.

Debian's own kernels have all of it, some as modules: those are loaded here, as using them would. Each thing is tried
and not looked up in a configuration, which says what was built and not what is allowed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..errors import RackError

_SECONDS = 30

_PROGRAMS = ("cc", "cp", "findmnt", "ip", "mmdebstrap", "mount", "nsenter", "ssh-keygen", "unshare")

_NAMESPACES = {
    "mnt": "CONFIG_NAMESPACES", "pid": "CONFIG_PID_NS", "net": "CONFIG_NET_NS", "uts": "CONFIG_UTS_NS",
    "ipc": "CONFIG_IPC_NS", "cgroup": "CONFIG_CGROUPS", "time": "CONFIG_TIME_NS (since Linux 5.6)",
}  # fmt: skip


@dataclass(frozen=True)
class _Trial:
    """Something that is tried in namespaces of its own, so that nothing of it is left."""

    what: str
    script: str
    remedy: str


_TRIALS = (
    _Trial(
        "entering new namespaces",
        "true",
        "run it as root, where a sandbox (seccomp, a container) allows unshare(2)",
    ),
    _Trial(
        "mounting proc in a new PID namespace",
        "mount -t proc proc /proc",
        "a sandbox that does not hide parts of /proc",
    ),
    _Trial(
        "mounting sysfs in a new network namespace",
        "mount -t sysfs sysfs /sys",
        "a sandbox with a writable /sys",
    ),
    _Trial(
        "an overlay whose upper folder is on a tmpfs",
        "mount -t tmpfs t /mnt; mkdir /mnt/l /mnt/u /mnt/w /mnt/m; "
        "mount -t overlay o -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w /mnt/m",
        "a kernel with CONFIG_OVERLAY_FS and CONFIG_TMPFS_XATTR; modprobe overlay",
    ),
    _Trial(
        "the version 2 cgroup hierarchy",
        "findmnt -n -t cgroup2 || mount -t cgroup2 c /mnt",
        "a kernel with CONFIG_CGROUPS and no `cgroup_no_v1`-like restriction of it",
    ),
    _Trial(
        "a veth pair", "ip link add one type veth peer name two", "a kernel with CONFIG_VETH; modprobe veth"
    ),
    _Trial("a bridge", "ip link add one type bridge", "a kernel with CONFIG_BRIDGE; modprobe bridge"),
    _Trial(
        "a macvlan interface",
        "ip link add one type veth peer name two; ip link add three link one type macvlan mode bridge",
        "a kernel with CONFIG_MACVLAN; modprobe macvlan",
    ),
    _Trial(
        "what CRIU needs of /proc",
        "test -d /proc/self/map_files; test -e /proc/thread-self/children",
        "a kernel with CONFIG_CHECKPOINT_RESTORE and CONFIG_PROC_CHILDREN",
    ),
)


def check() -> None:
    """Raise `RackError` that names everything that is missing here, and what to do about it."""
    problems = list(missing())
    if problems:
        raise RackError(
            "this machine cannot run the fast rack:\n" + "\n".join(f"  {line}" for line in problems)
        )


def missing(namespaces: Path = Path("/proc/self/ns")) -> list[str]:
    """What is missing, one line each; nothing more is tried when something that all trials need is."""
    if os.geteuid() != 0:
        return ["it makes namespaces and mounts: run it as root"]
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    found = [f"{name} is not installed: lab/host-packages" for name in absent]
    found += [
        f"no {name} namespaces: a kernel with {option}"
        for name, option in _NAMESPACES.items()
        if not (namespaces / name).exists()
    ]
    return found or kernel_lacks()


def kernel_lacks() -> list[str]:
    """What the running kernel does not have or allow, one line each, by trying; root is needed for that."""
    return [line for trial in _TRIALS if (line := _try(trial))]


def _try(trial: _Trial) -> str:
    result = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--time", "--fork",
         "--propagation", "private", "sh", "-euc", trial.script],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    if result.returncode == 0:
        return ""
    said = (result.stderr or result.stdout).strip().splitlines()
    return f"{trial.what} failed ({said[-1] if said else f'exit code {result.returncode}'}): {trial.remedy}"
