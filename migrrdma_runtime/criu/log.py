"""Find out of CRIU's log why a dump or a restore failed."""

import os

from migrrdma_runtime.base.escaping import printable

_MAX_LINES = 6
"""The first errors are the cause, those that follow are what it led to; a user is shown one line in all."""

_MAX_LENGTH = 400


class CriuLog:
    """The log that CRIU is about to write; made before CRIU starts, to tell its log from an older one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._before = _identity(path)

    def errors(self) -> list[str]:
        """The error messages in the log, in order, without time stamps; none when CRIU has not written it."""
        if _identity(self.path) == self._before:
            return []
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                found = dict.fromkeys(_message(line) for line in file if "Error (" in line)
        except OSError:
            return []
        return list(found)[:_MAX_LINES]


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _message(line: str) -> str:
    """``(00.012345)    123: Error (criu/x.c:7): text`` without what is in front of ``Error``, for a terminal."""
    return printable(line[line.index("Error (") :].strip()[:_MAX_LENGTH])
