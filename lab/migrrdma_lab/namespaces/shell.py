"""Commands on a node of the fast rack: a process of this machine that enters the node's namespaces."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import MachineError, NodeCommandError
from ..plan import Node, Places
from ..shell import Shell

_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--time")
_ENVIRONMENT = (
    "HOME=/root", "LANG=C.UTF-8", "LOGNAME=root", "SHELL=/bin/bash", "USER=root",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)  # fmt: skip
_NOT_ALLOWED = "--bounding-set=-sys_module,-sys_rawio"
"""What a node must not have either (`boot-node`): this process comes from outside."""


class NamespaceShell(Shell):
    """Root's shell on a node whose first process ``init`` finds."""

    rdma_options = ("--device=rack/rdma=all",)
    """By its CDI name: the software device is a node and the library that goes with it.

    It pins no memory, so it needs no limit raised, which a machine that keeps CAP_SYS_RESOURCE to itself refuses.
    """

    def __init__(self, places: Places, node: Node, init: Callable[[], int | None]) -> None:
        super().__init__(places, node)
        self._init = init

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The host command that runs ``words`` on the node; no words: an interactive shell."""
        init = self._init()
        if init is None:
            raise MachineError(f"{self.node.name} does not run: `lab/rack --fast up`, or boot it")
        environment = [*_ENVIRONMENT, *([f"TERM={os.environ.get('TERM', 'dumb')}"] if terminal else [])]
        return [
            # The process is in one of the node's cgroups first, and so is all that it starts.
            "sh", "-c", 'echo $$ >"$0" && exec "$@"', f"/proc/{init}/root/sys/fs/cgroup/rack-shell/cgroup.procs",
            "nsenter", "-t", str(init), *_NAMESPACES, "--",
            # What is killed here (a deadline that has passed) is killed there.
            "setpriv", "--pdeathsig", "KILL", _NOT_ALLOWED,
            "env", "-i", "--chdir=/root", *environment, *(words or ("bash", "-l")),
        ]  # fmt: skip

    def copy(self, source: str, destination: str, timeout: float = 300) -> None:
        """Copy a file or folder with cp, which runs on the node and reaches this machine's side by a descriptor."""
        outward = source.startswith(":")
        here = Path(destination if outward else source)
        into = outward and here.is_dir()
        folder = here if into else here.absolute().parent
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            reached = f"/proc/self/fd/{descriptor}/{'' if into else here.absolute().name}"
            sides = (source[1:], reached) if outward else (reached, destination[1:])
            command = self.command(["cp", "-r", "--preserve=mode,timestamps", "--", *sides])
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
                pass_fds=[descriptor],
            )  # fmt: skip
        finally:
            os.close(descriptor)
        if result.returncode:
            raise NodeCommandError(
                f"{self.node.name}: `{shlex.join(['cp', source, destination])}`: {result.stderr.strip()}",
                result.returncode, result.stdout, result.stderr,
            )  # fmt: skip
