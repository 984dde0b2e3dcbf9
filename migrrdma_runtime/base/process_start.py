"""When a process started: with its number, a name that no other process of this boot has."""


def look(pid: int, proc: str = "/proc") -> "tuple[str, int] | None":
    """Its state, one letter, and its start in clock ticks since the boot, by proc(5); None: there is no such one."""
    fields = _fields(pid, proc)
    return (fields[0], int(fields[19])) if fields else None


def parent(pid: int) -> int:
    """The number of its parent; 0: it has none in this pid namespace, or has ended."""
    fields = _fields(pid, "/proc")
    return int(fields[1]) if fields else 0


def _fields(pid: int, proc: str) -> "list[str]":
    """Of its ``stat``, from the state on; none: there is no such process."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (nor pathlib's cost)
            # The command's name, in parentheses, may hold anything, parentheses included.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return []
    return fields if len(fields) > 19 else []
