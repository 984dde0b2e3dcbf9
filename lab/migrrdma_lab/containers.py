"""Containers on a node, by the commands a user types: what the demo and the rack tests share."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from subprocess import CompletedProcess
from typing import Protocol

from .errors import NodeCommandError, RackError
from .plan import container_image
from .shell import Shell

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"
"""A shell whose only state is a variable: it prints 1, 2, 3 … and can neither skip nor repeat unnoticed."""


# The follower is ended at once: it would keep the ssh session open until the container's next line. It is no coprocess:
# bash closes that one's output as soon as it has ended, with the lines that have not been read.
_WAIT = """
exec {output}< <(exec "${@:3}" 2>&1)
follower=$!
trap 'kill $follower' EXIT
number=0
while IFS= read -r line <&$output; do
  number=$((number + 1))
  if [ $number -gt "$2" ] && [[ $line =~ $1 ]]; then exit 0; fi
done
exit 1
"""

_OUTPUT_ENDED = 1
"""How `_WAIT` exits then."""

_LAST = 10
"""How many lines of a container's output an error shows."""

_ENDED = "{{if not .State.Running}}{{.State.Status}}, exit code {{.State.ExitCode}}{{end}}"

_REFUSED = 1
"""How docker exits if its daemon has refused something: the node is there."""


class Printing(Protocol):
    """What prints lines on a node."""

    @property
    def shell(self) -> Shell:
        """Root's shell on the node."""

    @property
    def name(self) -> str:
        """What the container is called there."""

    def lines(self) -> list[str]:
        """What it has printed."""


def wait_for_line(
    printing: Printing, follow: Sequence[str], pattern: str, seconds: float, after: int
) -> None:
    """Wait until the command ``follow`` prints a line like ``pattern``, a regular expression, behind ``after`` others.

    Raises `RackError` with the last lines after ``seconds``.
    """
    words = ("timeout", str(int(seconds)), "bash", "-c", _WAIT, "wait", pattern, str(after), *follow)
    code = printing.shell.run(*words, timeout=seconds + 20, check=False).returncode
    if code:
        last = "\n".join(printing.lines()[-_LAST:])
        until = "before its output ended" if code == _OUTPUT_ENDED else f"in {seconds:.0f} s"
        raise RackError(
            f"{printing.shell.node.name}: container {printing.name} printed no line like {pattern!r} "
            f"{until} after its first {after}; its last lines are:\n{last}"
        )


_MOVE_S = 600
"""Docker packs the images into its store and unpacks them again: 100 MB take an emulated machine minutes."""


@dataclass(frozen=True)
class Container:
    """A container made with ``docker run`` or ``docker create`` on the node behind ``shell``."""

    shell: Shell
    name: str
    command: Sequence[str] = ("sh", "-c", COUNTER)
    options: Sequence[str] = ()
    image: str = field(default_factory=lambda: container_image("trixie"))
    runtime: str = "migrrdma"

    def docker(self, *words: str, timeout: float = 120, check: bool = True) -> CompletedProcess[str]:
        """``docker …`` on the node."""
        return self.shell.run("docker", *words, timeout=timeout, check=check)

    def _definition(self) -> list[str]:
        return [f"--runtime={self.runtime}", f"--name={self.name}", *self.options, self.image, *self.command]

    def run(self) -> Container:
        """``docker run -d``."""
        self.docker("run", "-d", *self._definition())
        return self

    def create(self) -> Container:
        """``docker create``: what a restore on another host needs."""
        self.docker("create", *self._definition())
        return self

    def on(self, shell: Shell) -> Container:
        """The same definition for another node."""
        return Container(shell, self.name, self.command, self.options, self.image, self.runtime)

    def checkpoint(self, checkpoint: str, *options: str) -> None:
        """``docker checkpoint create``."""
        with self._telling_its_end():
            self.docker("checkpoint", "create", *options, self.name, checkpoint, timeout=_MOVE_S)

    def restore(self, checkpoint: str) -> None:
        """``docker start --checkpoint``."""
        with self._telling_its_end():
            self.docker("start", "--checkpoint", checkpoint, self.name, timeout=_MOVE_S)

    def start(self) -> None:
        """``docker start``: from a checkpoint if one is staged for it."""
        with self._telling_its_end():
            self.docker("start", self.name, timeout=_MOVE_S)

    @contextmanager
    def _telling_its_end(self) -> Iterator[None]:
        """Note with a failure how the container has ended, if it has: that may be why, and is gone with it."""
        try:
            yield
        except NodeCommandError as error:
            # The node may be going down meanwhile: the failure is to be told, not that the reason was not found.
            with suppress(RackError):
                if error.code == _REFUSED and (ended := self._ended()):
                    last = "\n".join(self.lines()[-_LAST:])
                    error.add_note(f"{ended}; its last lines are:\n{last}")
            raise

    def _ended(self) -> str:
        """With which exit code it has; empty if it runs."""
        state = self.docker("inspect", "-f", _ENDED, self.name, check=False).stdout.strip()
        return state and f"{self.shell.node.name}: container {self.name} does not run: {state}"

    def lines(self) -> list[str]:
        """What the container has printed since it was created on this node."""
        result = self.docker("logs", self.name)
        return (result.stdout + result.stderr).splitlines()

    def wait_for_line(self, pattern: str, seconds: float = 60, *, after: int = 0) -> None:
        """Wait until a line that matches ``pattern`` (a regular expression) follows the first ``after``."""
        try:
            wait_for_line(self, ("docker", "logs", "-f", self.name), pattern, seconds, after)
        except RackError as error:
            with suppress(RackError):
                if ended := self._ended():
                    error.add_note(ended)
            raise

    def running(self) -> bool:
        """Whether Docker says it runs."""
        return self.docker("inspect", "-f", "{{.State.Running}}", self.name).stdout.strip() == "true"

    def full_id(self) -> str:
        """Docker's 64 hex digits."""
        return self.docker("inspect", "-f", "{{.Id}}", self.name).stdout.strip()

    def remove(self) -> None:
        """``docker rm -f``; no container is no error."""
        self.docker("rm", "-f", self.name, check=False)


def carry(checkpoint_dir: str, checkpoint: str, source: Shell, destination: Shell) -> None:
    """Copy a checkpoint from one node to another, as an administrator's scp would."""
    data = source.download(f"tar -C {shlex.quote(checkpoint_dir)} -c {shlex.quote(checkpoint)}")
    destination.run("mkdir", "-p", checkpoint_dir)
    destination.run("tar", "-C", checkpoint_dir, "-x", stdin=data)
