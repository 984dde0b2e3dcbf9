"""A program on a node of the rack under the guest library, and its control channel in the hands of the test."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from migrrdma_lab.shell import Shell

_ROOT = Path(__file__).resolve().parents[2]
_HOME = "/root/in-place"
_END_SECONDS = 180


def put(*shells: Shell) -> None:
    """Bring what drives a guest to these nodes, beside the library that is installed there."""
    for shell in shells:
        shell.run("rm", "-rf", _HOME)
        shell.run("mkdir", "-p", f"{_HOME}/tests/kit", f"{_HOME}/guest/wire")
        for name in ("tests/kit/guest_on_node.py", "tests/kit/guest_agent.py", "guest/wire/control.h"):
            shell.copy(str(_ROOT / name), f":{_HOME}/{name}")
        shell.sh(f"cp $(find /opt/migrrdma/ -name libmigrrdma.so) {_HOME}/")


class RemoteGuest:
    """One program on a node that `put` was called for; see ``guest_on_node.py``. Its first `answer` is a HELLO."""

    def __init__(self, shell: Shell, command: Sequence[str]) -> None:
        self.shell = shell
        words = [
            "env", f"PYTHONPATH={_HOME}/tests/kit", "/opt/migrrdma/bin/python",
            f"{_HOME}/tests/kit/guest_on_node.py", f"{_HOME}/libmigrrdma.so", f"{_HOME}/output", *command,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            shell.command(words),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._exit_code: int | None = None

    def __enter__(self) -> RemoteGuest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._exit_code is None:
            self._process.communicate(timeout=_END_SECONDS)

    def send(self, kind: str, body: Mapping[str, Any] | None = None, *records: Mapping[str, Any]) -> None:
        """Begin a request; `answer` returns what comes of it."""
        assert self._process.stdin is not None
        print(
            json.dumps({"kind": kind, "body": body or {}, "records": records}),
            file=self._process.stdin, flush=True,
        )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """The next line from the node."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self.shell.node.name}: {self.diagnosis()}"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, f"{self.shell.node.name}: {answer['error']}: {self.diagnosis()}"
        return answer

    def ask(
        self, kind: str, body: Mapping[str, Any] | None = None, *records: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Request and answer; its records."""
        self.send(kind, body, *records)
        answer: list[dict[str, Any]] = self.answer()["records"]
        return answer

    def diagnosis(self) -> str:
        """What the program and the library have said."""
        return self.shell.sh(f"tail -n 5 {_HOME}/output {_HOME}/output.guest", check=False).stdout

    def lines(self) -> list[str]:
        """What the program has printed."""
        return self.shell.run("cat", f"{_HOME}/output").stdout.splitlines()

    def wait_for_line(self, pattern: str, seconds: float = 90, after: int = 0) -> None:
        """Until a line that matches comes after the first ``after`` lines."""
        self.shell.wait_for_line(f"{_HOME}/output", pattern, seconds, after=after)

    def end(self) -> int:
        """Tell the program to stop; its exit code."""
        if self._exit_code is None:
            output, errors = self._process.communicate(timeout=_END_SECONDS)
            assert self._process.returncode == 0, errors
            self._exit_code = int(output.splitlines()[-1])
        return self._exit_code
