"""A program that prints nothing as it goes: whether it is at work is told by the processor time that it takes."""

from __future__ import annotations

from migrrdma_lab.shell import Shell

_FOR_A_WHILE = 50
"""Clock ticks of processor time, or as many times woken: that is for those who wait for events."""

# Nothing tells when a process has used the processor.
_UNTIL = """
work() {
  read -r -a stat </proc/$1/stat
  read -r _ woken < <(grep '^voluntary' /proc/$1/status)
  echo $((stat[13] + stat[14] + woken))
}
until=$(($(work $1) + $2))
while [ "$(work $1)" -lt $until ]; do sleep 0.05; done
"""


def wait_until_at_work(node: Shell, pid: str, a_while: int = _FOR_A_WHILE) -> None:
    """Wait until a process has worked for a while from now on; raises `NodeCommandError` if it ends before."""
    node.run("bash", "-euc", _UNTIL, "until", pid, str(a_while))
