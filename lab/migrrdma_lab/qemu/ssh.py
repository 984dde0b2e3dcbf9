"""Commands on a machine, over one kept-open ssh connection: a new one costs half a second in emulation."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import MachineError, NodeCommandError
from ..plan import Node, Places
from ..shell import Shell
from .disk import NodeImage

_CONNECT_SECONDS = 5
_SSH_FAILED = 255
"""ssh(1): the exit code of an error of its own."""


class SshShell(Shell):
    """Root's shell on one virtual machine."""

    def __init__(self, places: Places, node: Node, image: NodeImage) -> None:
        super().__init__(places, node)
        self.image = image

    @property
    def _options(self) -> list[str]:
        control = self.places.run / f"{self.node.name}.ssh"
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(_CONNECT_SECONDS),
            "ControlMaster": "auto",
            "ControlPath": str(control),
            "ControlPersist": "600",
            "IdentityFile": str(self.image.ssh_key),
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveInterval": "15",
            # The machines are made here and reachable only in the rack's own namespace.
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]

    @property
    def _enter(self) -> list[str]:
        return ["ip", "netns", "exec", self.places.namespace]

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The host command that runs ``words`` on the node; no words: an interactive shell."""
        return [
            *self._enter, "ssh", "-F", "none", *self._options, *(["-t"] if terminal else []),
            f"root@{self.node.management_address}", *([shlex.join(words)] if words else []),
        ]  # fmt: skip

    def explain(self, code: int) -> str:
        """Of a connection that broke: what the node's console says of a crash of its kernel."""
        if code != _SSH_FAILED:
            return ""
        console = self.places.run / f"{self.node.name}.console"
        with contextlib.suppress(OSError):
            for line in console.read_text(errors="replace").splitlines():
                if (
                    "watchdog: " in line
                ):  # a host that was busy, or a clock that went on while a snapshot was loaded
                    continue
                if "BUG: " in line or "Kernel panic" in line:
                    return (
                        f"the connection to it broke; its kernel says: {line.strip()} (all of it: {console})"
                    )
        return "the connection to it broke"

    def copy(self, source: str, destination: str, timeout: float = 300) -> None:
        """Copy with scp; the node's side is written ``:PATH``."""
        sides = [f"root@{self.node.management_address}{side}" if side.startswith(":") else side
                 for side in (source, destination)]  # fmt: skip
        result = subprocess.run(
            [*self._enter, "scp", "-F", "none", "-q", "-r", "-p", *self._options, "--", *sides],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if result.returncode:
            raise NodeCommandError(
                f"{self.node.name}: copying {source} to {destination}: {result.stderr.strip()}",
                result.returncode, result.stdout, result.stderr,
            )  # fmt: skip

    def wait(self, seconds: float, console: Path) -> None:
        """Wait until the node answers."""
        deadline = time.monotonic() + seconds
        while True:
            started = time.monotonic()
            result = subprocess.run(
                self.command(["true"]), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if result.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise MachineError(
                    f"{self.node.name} did not answer to ssh in {seconds:.0f} s ({result.stderr.strip()}); "
                    f"its console is {console}"
                )
            # A refused connection comes back at once; an address nobody has yet takes ConnectTimeout.
            time.sleep(max(0.0, 0.5 - (time.monotonic() - started)))

    def disconnect(self) -> None:
        """Drop the kept-open connection: the machine it led to has been put back or stopped."""
        subprocess.run(
            [*self._enter, "ssh", "-F", "none", *self._options, "-O", "exit",
             f"root@{self.node.management_address}"],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=10,
        )  # fmt: skip
