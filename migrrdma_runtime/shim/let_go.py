"""Let a container go that a CRIU held which has died: it goes on, and must find its network as it was.

CRIU freezes the container's cgroup until it has stopped every process, cuts the network off with a rule, and puts TCP
sockets into repair mode, in which reading fails with EPERM (``tcp_recvmsg`` in the kernel). A CRIU that fails takes all
of it back; one that is killed, by the kernel when memory ends say, leaves the cgroup frozen and the rule for ever, and
the mode as long as the socket.
"""

import os
import re
import socket
import time

from migrrdma_runtime.shim import freezer, processes

_TCP_REPAIR = 19
"""``linux/tcp.h``; 1: on, 0: off."""
_PIDFD_GETFD = 438
"""The system call, of the same number on every architecture."""
_SECONDS = 10
"""For all that is to be done in the container's network: it may have made any number of rules there."""
_UNLOCK = """*filter
:CRIU - [0:0]
-D INPUT -j CRIU
-D OUTPUT -j CRIU
-X CRIU
COMMIT
"""
"""What CRIU itself gives ``iptables-restore`` when it takes its rule back. Where there is none it changes nothing."""

_TABLE = re.compile(r"table inet (CRIU-(?:[0-9]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}))", re.ASCII)
"""A table of CRIU's as ``nft`` lists it, named by the first process's number, or by a UUID (``nftables_get_table``)."""


def let_go(folder: str, frozen_before: "list[str]") -> None:
    """Take back what is left of CRIU's; what cannot be done is left, as it would have been.

    ``folder``: where the low-level runtime keeps the container's state. ``frozen_before``: what was frozen when CRIU
    began (``freezer.closed``), and stays so: a paused container.
    """
    first = processes.first_process(folder)
    if not first:
        return
    try:
        _unlock_network(first)
        for pid in processes.members(folder, first):
            _end_repair(pid)
    except OSError:
        pass
    freezer.open_again([one for one in freezer.closed(first) if one not in frozen_before])


def _unlock_network(first: int) -> None:
    if os.stat(f"/proc/{first}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
        return  # the host's, in which CRIU has a rule for each connection, and a user any of his own
    end = time.monotonic() + _SECONDS
    _in_network(first, end, ["iptables-restore", "--noflush"], _UNLOCK)
    _in_network(first, end, ["ip6tables-restore", "--noflush"], _UNLOCK)
    listed = _in_network(first, end, ["nft", "list", "tables", "inet"]).splitlines()
    tables = [found[1] for found in map(_TABLE.fullmatch, listed) if found]
    if tables:
        # All or none are deleted: made first, one that has gone meanwhile does not keep the others.
        lines = [f"add table inet {one}\ndelete table inet {one}\n" for one in tables]
        _in_network(first, end, ["nft", "--file", "-"], "".join(lines))


def _in_network(first: int, end: float, command: "list[str]", said: str = "") -> str:
    import subprocess

    left = end - time.monotonic()
    if left <= 0:
        return ""  # with no time it would be begun all the same
    try:
        return subprocess.run(
            ["nsenter", f"--net=/proc/{first}/ns/net", *command],
            input=said, capture_output=True, text=True, errors="replace", check=False,
            timeout=left,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _end_repair(pid: int) -> None:
    """Of every socket of a process that is in repair mode: take it out of it."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
        handle = os.pidfd_open(pid)
    except OSError:
        return  # it has ended
    try:
        for name in names:
            if _is_socket(pid, name):
                _end_repair_of(handle, int(name))
    finally:
        os.close(handle)


def _is_socket(pid: int, name: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    except OSError:
        return False


def _end_repair_of(handle: int, number: int) -> None:
    import ctypes

    copy = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, handle, number, 0)
    if copy < 0:
        return
    try:
        with socket.socket(fileno=copy) as one:
            if one.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
                one.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
    except OSError:
        return  # not of TCP, or closed
