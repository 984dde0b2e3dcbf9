"""What a container that counts (`migrrdma_lab.containers.COUNTER`) has printed."""

from __future__ import annotations

from migrrdma_lab.containers import Container


def numbers(container: Container) -> list[int]:
    """All of it."""
    return [int(line) for line in container.lines()]


def goes_on(container: Container, beyond: int = 0) -> None:
    """The counter prints more than it has, and every number is the successor of the one before."""
    before = len(container.lines())
    container.wait_for_line("^[0-9]+", after=before + beyond)
    printed = numbers(container)
    assert printed == list(range(printed[0], printed[0] + len(printed)))
