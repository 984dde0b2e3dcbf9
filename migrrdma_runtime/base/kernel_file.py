"""What the kernel says in ``/proc``, line by line."""


def lines(path: str, errors: str = "surrogateescape") -> "list[str]":
    """The lines of a file there, without the empty ones; none: what it is about has ended, or we may not read it.

    ``errors``: how Python is to decode what is no UTF-8. As it stands the bytes can be told apart and written back.

    The kernel escapes the byte that ends a line in every name it writes, and no other: a name may hold whatever else
    ends a line in Python's eyes.
    """
    try:
        with open(path, encoding="utf-8", errors=errors, newline="\n") as file:
            return [line for line in file.read().split("\n") if line]
    except OSError:
        return []


def unescaped(name: str) -> str:
    """A name of a table of mounts, in which what separates fields and lines stands in octal (proc(5), mountinfo)."""
    import re

    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)
