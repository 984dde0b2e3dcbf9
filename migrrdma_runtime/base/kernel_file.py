"""What the kernel says in ``/proc``, line by line."""


def lines(path: str) -> "list[str]":
    """The lines of a file there, without the empty ones; none: what it is about has ended, or we may not read it.

    The kernel escapes the byte that ends a line in every name it writes, and no other: a name may hold whatever else
    ends a line in Python's eyes.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return [line for line in file.read().split("\n") if line]
    except OSError:
        return []
