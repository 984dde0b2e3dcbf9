"""A C program of ``tests/workloads``, in containers that may be on any node of the fast rack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from guest_build import ROOT, compile_c
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer


def workload_container(
    node: Shell, program: str, name: str, address: str, words: Sequence[str]
) -> RuntimeContainer:
    """One of them; `bring` brings the program."""
    return RuntimeContainer(node, name, address, [f"/mnt/{program}", *words], [(f"/root/{program}", "/mnt")])


@contextmanager
def bring(
    program: str,
    nodes: Sequence[Shell],
    directory: Path,
    containers: Mapping[str, object],
    on: Callable[[Shell, str], RuntimeContainer],
) -> Iterator[None]:
    """Build the program in ``directory``, have it and ``containers``, by name, on each node, and take these away."""
    built = directory / program
    compile_c(built, ROOT / f"tests/workloads/{program}.c", "-libverbs")
    for node in nodes:
        node.run("mkdir", "-p", f"/root/{program}")
        node.copy(str(built), f":/root/{program}/{program}")
        for name in containers:
            on(node, name).remove()
            on(node, name).prepare()
    yield
    for node in nodes:
        for name in containers:
            on(node, name).remove()
