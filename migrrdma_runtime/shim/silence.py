"""Cut a container off before it is killed: its kernel would tell its TCP peers that it has gone.

What was restored in vain is killed, and its image is restored once more. By then its connections must still be there at
their other ends, which a FIN or RST from here would have ended.
"""

import fcntl
import os
import socket
import struct

from migrrdma_runtime.shim import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_REQUEST = "16sH22x"
"""``struct ifreq`` of netdevice(7): the name, then here the flags."""


def silence(folder: str) -> None:
    """Take the links of its network down, if it has one to itself; what cannot be done is left: it is killed anyway.

    ``folder``: where the low-level runtime keeps the container's state: runc's ``state.json`` or crun's ``status``.
    """
    network = own_network(folder)
    if network < 0:
        return
    try:
        in_a_child(network, _take_links_down)
    finally:
        os.close(network)


def own_network(folder: str) -> int:
    """The network of a container, opened, if it has one to itself; else -1."""
    pid = processes.first_process(folder)
    network = _network_of(pid) if pid else -1
    # The first process once more: as it has not ended, it is its own network that was opened.
    if network >= 0 and (_is_shared(network, folder, pid) or processes.first_process(folder) != pid):
        os.close(network)
        return -1
    return network


def silence_all(pids: "list[int]") -> None:
    """Take the links down of all networks in which only these are; they stand still, and nobody has reaped them."""
    done: set[int] = set()
    for pid in pids:
        network = _network_of(pid)
        if network < 0:
            continue
        number = os.fstat(network).st_ino
        if number not in done and _pids_in(network).issubset(pids):
            in_a_child(network, _take_links_down)
        done.add(number)
        os.close(network)


def _network_of(pid: int) -> int:
    """Opened; -1 if it is gone, or this process's own."""
    try:
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    if os.fstat(network).st_ino != os.stat("/proc/self/ns/net").st_ino:
        return network
    os.close(network)
    return -1


def _is_shared(network: int, folder: str, pid: int) -> bool:
    """Whether a process of another cgroup is in the network, as in a pod or with ``--network container:NAME``.

    It goes on when the container has been killed, and nobody would take the links up for it.
    """
    container = processes.container_cgroups(folder, pid)
    others = (processes.cgroups(one) for one in _pids_in(network))
    return any(groups and not processes.are_within(groups, container) for groups in others)


def _pids_in(network: int) -> "set[int]":
    status, found = os.fstat(network), set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            other = os.stat(f"/proc/{name}/ns/net")
        except OSError:
            continue  # it has ended
        if (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
            found.add(int(name))
    return found


def in_a_child(network: int, what: "Callable[[], None]") -> None:
    """Do it in a process that ends with it: the network of this one must stay what it is."""
    child = os.fork()
    if child == 0:
        try:
            import ctypes

            if ctypes.CDLL(None).setns(network, _CLONE_NEWNET) == 0:
                what()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _take_links_down() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack(_REQUEST, name.encode(), 0)
            _, flags = struct.unpack(_REQUEST, fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_REQUEST, name.encode(), flags & ~_IFF_UP))


if __name__ == "__main__":
    import sys

    # For the mover, in which nothing may fork: gRPC would have that wait until none of its threads works.
    silence(sys.argv[1])
