"""What tests of `docker run --runtime=migrrdma` look at and change on a node."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

from migrrdma_lab.containers import Container
from migrrdma_lab.shell import Shell

SLEEP = ("sleep", "600")


def maps_the_guest_library(container: Container, *exec_options: str) -> bool:
    """Whether a process that is started in the container has the library."""
    maps = container.docker("exec", *exec_options, container.name, "cat", "/proc/self/maps").stdout
    return "/dev/migrrdma/guest/" in maps


@contextlib.contextmanager
def configured(node: Shell, line: str) -> Iterator[None]:
    """``line`` as the first of the node's configuration file."""
    file = "/etc/migrrdma/config.toml"
    node.sh(f"cp {file} {file}.kept; {{ echo {shlex.quote(line)}; cat {file}.kept; }} >{file}")
    try:
        yield
    finally:
        node.run("mv", f"{file}.kept", file)
