"""When a process started: with its number, a name that no other process of this boot has."""


def look(pid: int, proc: str = "/proc") -> "tuple[str, int] | None":
    """Its state, one letter, and its start in clock ticks since the boot, by proc(5); None: there is no such one."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (nor pathlib's cost)
            # The command's name, in parentheses, may hold anything, parentheses included.
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
