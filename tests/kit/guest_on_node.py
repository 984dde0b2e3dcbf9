"""Runs on a node: one program under the guest library, driven by lines of JSON instead of an agent.

``{"kind": …, "body": …, "records": […]}`` goes to the guest as it is; the line that comes back holds what it answered,
``{"body": …, "records": […]}``, or ``{"error": …}``. Bytes are written as ``{"hex": …}``. The first line that is
printed is the guest's HELLO. At the end of the input the program is told to stop, and its exit code is the last line.

    guest_on_node.py LIBRARY OUTPUT COMMAND…
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from guest_agent import Agent, GuestError

_STOP_SECONDS = 30


def _plain(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _given(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
        for name, value in record.items()
    }


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in record.items()}


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def main(library: str, output: str, *command: str) -> None:
    with tempfile.TemporaryDirectory() as directory, Agent(Path(directory)) as agent:
        environment = {
            **os.environ, **agent.environment, "LD_PRELOAD": library, "MIGRRDMA_LOG": f"info:{output}.guest",
        }  # fmt: skip
        with Path(output).open("wb") as printed:
            process = subprocess.Popen(command, env=environment, stdout=printed, stderr=subprocess.STDOUT)
        try:
            _say(_shown(agent.accept()))
            for line in sys.stdin:
                request = json.loads(line)
                try:
                    answer = agent.ask(
                        request["kind"], _given(request["body"]), map(_given, request["records"])
                    )
                except GuestError as error:
                    _say({"error": str(error)})
                else:
                    _say({"body": _shown(answer.body), "records": list(map(_shown, answer.records))})
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            print(process.wait(_STOP_SECONDS), flush=True)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
