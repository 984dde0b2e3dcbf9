"""Commands on a node, over one kept-open ssh connection: a new one costs half a second in emulation."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import MachineError, NodeCommandError
from .images import NodeImage
from .plan import Node, Places

_CONNECT_SECONDS = 5
_SSH_FAILED = 255
"""ssh(1): the exit code of an error of its own."""


@dataclass(frozen=True)
class Shell:
    """Root's shell on one node."""

    places: Places
    node: Node
    image: NodeImage

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

    def run(
        self, *words: str, timeout: float = 120, stdin: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``words`` on the node and return what came back; `NodeCommandError` on a non-zero exit."""
        try:
            raw = subprocess.run(
                self.command(words), input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                capture_output=True, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise MachineError(
                f"{self.node.name}: `{shlex.join(words)}` did not end in {timeout:.0f} s"
            ) from exc
        result = subprocess.CompletedProcess(
            words, raw.returncode, raw.stdout.decode(errors="replace"), raw.stderr.decode(errors="replace")
        )
        if check and result.returncode:
            said = (result.stderr or result.stdout).strip()
            if result.returncode == _SSH_FAILED:
                said = f"{said or 'the connection to it broke'}{self._crash()}"
            raise NodeCommandError(
                f"{self.node.name}: `{shlex.join(words)}` exited with {result.returncode}: {said}",
                result.returncode, result.stdout, result.stderr,
            )  # fmt: skip
        return result

    def _crash(self) -> str:
        """What the node's console says of a crash of its kernel."""
        console = self.places.run / f"{self.node.name}.console"
        with contextlib.suppress(OSError):
            for line in console.read_text(errors="replace").splitlines():
                if "BUG: " in line or "Kernel panic" in line:
                    return f"; its kernel says: {line.strip()} (all of it: {console})"
        return ""

    def sh(
        self, script: str, *, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script on the node."""
        return self.run("sh", "-euc", script, timeout=timeout, check=check)

    def download(self, script: str, *, timeout: float = 120) -> bytes:
        """What a shell script on the node writes to its standard output, to the byte."""
        result = subprocess.run(
            self.command(["sh", "-euc", script]), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        if result.returncode:
            raise NodeCommandError(
                f"{self.node.name}: `{script}` exited with {result.returncode}: "
                f"{result.stderr.decode(errors='replace').strip()}",
                result.returncode, "", result.stderr.decode(errors="replace"),
            )  # fmt: skip
        return result.stdout

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

    def wait_for_line(self, path: str, pattern: str, seconds: float, *, after: int = 0) -> None:
        """Wait until a file there has a line like ``pattern``, of grep -E's, behind its first ``after``."""
        # Not `tail -n +K`, which of a file with fewer than K lines prints every line to come; nor `sed 'K,$p'`, which
        # keeps a line until it knows whether it is the last. What is left when grep has ended must not hold ssh.
        skip = f"1,{after}d" if after else ""
        rest = f"exec 2>/dev/null; tail --pid=$$ -n +1 -F {path} | sed -u '{skip}'"
        follow = f"grep -m1 -qE '{pattern}' < <({rest})"
        self.run("timeout", f"{seconds:.0f}", "bash", "-c", follow, timeout=seconds + 90)

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
