"""Commands to a running daemon of software devices; `lab/device/daemon/control.c` has the list."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from migrrdma_lab.errors import RackError

_PATIENCE = 30
"""Seconds that an answer may take."""


class Control:
    """The control socket of one daemon."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, *words: str | int) -> list[str]:
        """The lines of the answer. `RackError` if the daemon refuses, or none is there."""
        command = " ".join(map(str, words))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.settimeout(_PATIENCE)
                connection.connect(str(self.path))
                connection.send(command.encode())
                *lines, last = connection.recv(1 << 16).decode().split("\n")
        except OSError as exc:
            raise RackError(f"the daemon of software devices at {self.path}: {command}: {exc}") from exc
        if last != "ok":
            raise RackError(f"the daemon of software devices at {self.path}: {command}: {last}")
        return lines

    def set(self, host: str, name: str, value: int) -> None:
        """A limit, a property of the wire or a planted fault; ``settings`` lists them."""
        self.ask("set", host, name, value)

    def count(self, host: str, what: str) -> int:
        """One counter of the device, as "executed", "overflows", "lost" or "qps"."""
        return int(self.ask("count", host, what)[0])


def main(arguments: list[str]) -> int:
    """Usage: python3 -m migrrdma_lab.device.control SOCKET COMMAND [WORD ...]."""
    if len(arguments) < 2:
        print(main.__doc__, file=sys.stderr)
        return 2
    try:
        for line in Control(Path(arguments[0])).ask(*arguments[1:]):
            print(line)
    except RackError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
