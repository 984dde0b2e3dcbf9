"""Write our own messages where runc writes its own, and in the same form.

Docker and containerd show their users the last error line of the ``--log`` file; people at a terminal look at
stderr. runc logs through logrus, whose JSON and ``key=value`` lines are reproduced here.
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrrdma_runtime.shim.argv import Invocation


def error(invocation: "Invocation", message: str) -> None:
    """Log an error as runc's last words: to the log, and to stderr as well when the log is elsewhere."""
    line = _line(invocation, "error", message)
    os.write(2, f"{message}\n".encode(errors="surrogateescape") if _append(invocation, line) else line)


def warn(invocation: "Invocation", message: str) -> None:
    """Log a warning, if there is a log; stderr belongs to the container's own output."""
    _append(invocation, _line(invocation, "warning", message))


def _append(invocation: "Invocation", line: bytes) -> bool:
    path = invocation.globals.get("log")
    if not path:
        return False
    try:
        log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(log, line)
        finally:
            os.close(log)
    except OSError:
        return False  # the low-level runtime will complain about it, if it gets that far
    return True


def _line(invocation: "Invocation", level: str, message: str) -> bytes:
    import json

    if invocation.globals.get("log-format") == "json":
        text = json.dumps(
            {"level": level, "msg": message, "time": _now()}, ensure_ascii=False, separators=(",", ":")
        )
    else:
        # Go's %q and JSON quote alike, but for characters that no message of ours holds.
        text = f'time="{_now()}" level={level} msg={json.dumps(message, ensure_ascii=False)}'
    return f"{text}\n".encode(errors="surrogateescape")


def _now() -> str:
    """RFC 3339 with the local zone, as Go prints it."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return stamp[:-5] + "Z" if stamp.endswith("+0000") else f"{stamp[:-2]}:{stamp[-2:]}"
