"""Root's shell on a node: run, copy, wait. How a command gets there is each rack's own."""

from __future__ import annotations

import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence

from .errors import MachineError, NodeCommandError
from .plan import Node, Places

_LOOK_SECONDS = 60


class Shell(ABC):
    """What every rack's shell does, from the host command that its `command` gives."""

    rdma_options: tuple[str, ...] = ("--device=/dev/infiniband/uverbs0", "--ulimit=memlock=-1")
    """What `docker run` is given to put the node's RDMA device into a container that may pin its memory."""

    def __init__(self, places: Places, node: Node) -> None:
        self.places = places
        self.node = node

    @abstractmethod
    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The host command that runs ``words`` on the node; no words: an interactive shell."""

    @abstractmethod
    def copy(self, source: str, destination: str, timeout: float = 300) -> None:
        """Copy a file or folder; the node's side is written ``:PATH``. Existing files are replaced.

        As with ``cp -r``, a folder that is there already receives the source inside it.
        """

    def explain(self, code: int) -> str:
        """What is known of a failure with this exit code beyond what the command said; empty if nothing."""
        del code
        return ""

    def run(
        self, *words: str, timeout: float = 120, stdin: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``words`` on the node and return what came back.

        Raises `NodeCommandError` on a non-zero exit if ``check``, `MachineError` after ``timeout`` seconds.
        """
        try:
            raw = subprocess.run(
                self.command(words), input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                capture_output=True, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise MachineError(
                f"{self.node.name}: `{shlex.join(words)}` did not end in {timeout:.0f} s; {self._what_it_does()}"
            ) from exc
        result = subprocess.CompletedProcess(
            words, raw.returncode, raw.stdout.decode(errors="replace"), raw.stderr.decode(errors="replace")
        )
        if check and result.returncode:
            said = "; ".join(
                filter(None, ((result.stderr or result.stdout).strip(), self.explain(result.returncode)))
            )
            raise NodeCommandError(
                f"{self.node.name}: `{shlex.join(words)}` exited with {result.returncode}: {said}",
                result.returncode, result.stdout, result.stderr,
            )  # fmt: skip
        return result

    def _what_it_does(self) -> str:
        """What keeps a node busy on which a command has not come to its end: afterwards it cannot be seen any more."""
        look = shlex.join(
            ["ps", "-ww", "-eo", "pid,stat,wchan:24,pcpu,etime,args", "--sort=-pcpu", "--no-headers"]
        )
        try:
            seen = subprocess.run(
                self.command(["sh", "-euc", f"uptime; {look} | head -40 | cut -c1-240"]), stdin=subprocess.DEVNULL,
                capture_output=True, timeout=_LOOK_SECONDS, check=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"nor did a look at its processes in {_LOOK_SECONDS} s"
        except subprocess.CalledProcessError as exc:
            return f"and its processes cannot be looked at: {self.explain(exc.returncode)}"
        return f"what it does:\n{seen.stdout.decode(errors='replace')}"

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

    def wait_for_line(self, path: str, pattern: str, seconds: float, *, after: int = 0) -> None:
        """Wait until a file there has a line like ``pattern``, of grep -E's, behind its first ``after``."""
        # Not `tail -n +K`, which of a file with fewer than K lines prints every line to come; nor `sed 'K,$p'`, which
        # keeps a line until it knows whether it is the last. What is left when grep has ended must not hold the shell.
        skip = f"1,{after}d" if after else ""
        rest = f"exec 2>/dev/null; tail --pid=$$ -n +1 -F {path} | sed -u '{skip}'"
        follow = f"grep -m1 -qE '{pattern}' < <({rest})"
        self.run("timeout", f"{seconds:.0f}", "bash", "-c", follow, timeout=seconds + 90)
