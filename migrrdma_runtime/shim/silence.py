"""Cut a container off before it is killed: its kernel would tell its TCP peers that it has gone.

What was restored in vain is killed, and its image is restored once more. By then its connections must still be there at
their other ends, which a FIN or RST from here would have ended.
"""

import fcntl
import os
import socket
import struct

from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.shim import bundle

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_REQUEST = "16sH22x"
"""``struct ifreq`` of netdevice(7): the name, then here the flags."""


def silence(root: str, container_id: str) -> None:
    """Take the links of its network down, if it has one to itself; what cannot be done is left: it is killed anyway.

    ``root``: where the low-level runtime keeps its state: runc's ``state.json`` or crun's ``status``.
    """
    folder = f"{root}/{container_id}"
    pid = _first_process(folder)
    try:
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC) if pid else -1
    except OSError:
        return
    if network < 0:
        return
    try:
        ours = os.fstat(network).st_ino == os.stat("/proc/self/ns/net").st_ino
        # The first process once more: as it has not ended, it is its own network that was opened.
        if not ours and not _is_shared(network, pid) and _first_process(folder) == pid:
            _in_a_child(network)
    finally:
        os.close(network)


def _first_process(folder: str) -> int:
    """The container's first process; 0: it has ended, and its number may be another's by now."""
    for name, member, start in (
        ("state.json", "init_process_pid", "init_process_start"),
        ("status", "pid", "process-start-time"),
    ):
        try:
            found, _ = bundle.read(f"{folder}/{name}")
            pid = int(found[member]) if isinstance(found, dict) else 0
            return pid if isinstance(found, dict) and found.get(start) in (None, _started(pid)) else 0
        except (SpecError, KeyError, TypeError, ValueError):
            continue
    return 0


def _started(pid: int) -> int:
    """When a process started, in clock ticks since the boot (proc(5)); -1: there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The command's name, in parentheses, may hold anything.
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


def _is_shared(network: int, pid: int) -> bool:
    """Whether a process of another cgroup is in the network, as in a pod or with ``--network container:NAME``.

    It goes on when the container has been killed, and nobody would take the links up for it.
    """
    status, container = os.fstat(network), _cgroups(pid)
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            other = os.stat(f"/proc/{name}/ns/net")
        except OSError:
            continue  # it has ended
        if (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
            groups = _cgroups(int(name))
            if groups and not _are_within(groups, container):
                return True
    return False


def _are_within(groups: "list[str]", container: "list[str]") -> bool:
    return len(groups) == len(container) and all(
        f"{group}/".startswith(f"{outer.rstrip('/')}/")
        for group, outer in zip(groups, container, strict=True)
    )


def _cgroups(pid: int) -> "list[str]":
    """A process's cgroup in each hierarchy; none: it has ended."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _in_a_child(network: int) -> None:
    """Do it in a process that ends with it: the network of this one must stay what it is."""
    child = os.fork()
    if child == 0:
        try:
            import ctypes

            if ctypes.CDLL(None).setns(network, _CLONE_NEWNET) == 0:
                _take_links_down()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _take_links_down() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack(_REQUEST, name.encode(), 0)
            _, flags = struct.unpack(_REQUEST, fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_REQUEST, name.encode(), flags & ~_IFF_UP))
