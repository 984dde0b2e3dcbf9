"""Keep the network of a container that stands still from answering for it, and let it answer again.

The kernel acknowledges what a peer sends to a frozen process, and the peer sends that never again. What was
acknowledged after the dump is in no image: the connection would hang for ever where the container is restored. CRIU has
a rule of its own against that, and takes it away at its end.

What is not acknowledged is sent again, here if the container goes on here after all.
"""

import contextlib
import fcntl
import os
import socket
import struct
import subprocess

from migrrdma_runtime.base.errors import CheckpointError
from migrrdma_runtime.shim import silence

_CHAIN = "MIGRRDMA"
_CUT_OFF = f"""*filter
:{_CHAIN} - [0:0]
-A {_CHAIN} -j DROP
-I INPUT -j {_CHAIN}
-I OUTPUT -j {_CHAIN}
COMMIT
"""
_LET_IN = tuple(
    f"*filter\n:{_CHAIN} - [0:0]\n{rules}-X {_CHAIN}\nCOMMIT\n"
    for rules in (
        f"-D INPUT -j {_CHAIN}\n-D OUTPUT -j {_CHAIN}\n",
        f"-D INPUT -j {_CHAIN}\n",  # as hooks/cut-off has it
    )
)
"""All or nothing: where there is no such rule it changes nothing."""
_COMMANDS = (("iptables-restore", "--noflush"), ("ip6tables-restore", "--noflush"))
_SECONDS = 10

_SIOCGIFADDR = 0x8915
_ETH_P_IP = 0x0800
_ETH_P_ARP = 0x0806
_ARPHRD_ETHER = 1
_REQUEST = 1


def cut_off(folder: str) -> None:
    """Drop every packet from now on, in a network that it has to itself; `CheckpointError` if that cannot be.

    ``folder``: where the low-level runtime keeps the container's state.
    """
    network = silence.own_network(folder)
    if network < 0:
        return
    try:
        for command in _COMMANDS:
            _remove(network, command)  # what one that was killed has left
            if why := _run(network, command, _CUT_OFF):
                raise CheckpointError(
                    f"the network of the container cannot be kept from answering for it: {command[0]}: {why}"
                )
    except BaseException:
        _let_in(network)
        raise
    finally:
        os.close(network)


def let_in(folder: str) -> None:
    """Undo `cut_off`; where nothing is cut off, nothing happens."""
    network = silence.own_network(folder)
    if network < 0:
        return
    try:
        _let_in(network)
    finally:
        os.close(network)


def _let_in(network: int) -> None:
    for command in _COMMANDS:
        _remove(network, command)
    # A switch sends what is meant for it where it has seen its address last: perhaps on another host.
    silence.in_a_child(network, _announce)


def _remove(network: int, command: "tuple[str, ...]") -> None:
    for rules in _LET_IN:
        _run(network, command, rules)


def _announce() -> None:
    """Say on every link of this network which address is there (RFC 5227, *ARP Announcement*)."""
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError):  # one that has no such address, or is down
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                request = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("16s24x", name.encode()))
                address = request[20:24]
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP)) as link:
                link.bind((name, _ETH_P_ARP))
                _, _, _, kind, hardware = link.getsockname()
                if kind != _ARPHRD_ETHER:
                    continue
                link.send(
                    b"\xff" * 6 + hardware + struct.pack("!HHHBBH", _ETH_P_ARP, kind, _ETH_P_IP, 6, 4, _REQUEST)
                    + hardware + address + bytes(6) + address
                )  # fmt: skip


def _run(network: int, command: "tuple[str, ...]", said: str) -> str:
    """Why it failed; empty if it has not."""
    words = ["nsenter", f"--net=/proc/self/fd/{network}", *command]
    try:
        done = subprocess.run(
            words, input=said, capture_output=True, text=True, errors="replace", check=False, pass_fds=(network,),
            timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return " ".join(done.stderr.split()) or f"exit status {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    import sys

    # For the mover, which lets the container go on.
    let_in(sys.argv[1])
