"""The OCI runtime's end of the conversation with its agent."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import (
    UnreachableError,
)
from migrrdma_runtime.wire import manifest, runtime_client


def test_the_runtime_can_import_the_client_without_its_site_packages() -> None:
    package = Path(manifest.__file__).parents[2]
    script = (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        "from migrrdma_runtime.wire import manifest, runtime_client\n"
        "heavy = {'jsonschema', 'grpc', 'asyncio', 'typing', 'dataclasses', 're'} & set(sys.modules)\n"
        "print(sorted(heavy - set(before)))\n"
    )
    script = "import json, socket, sys; before = list(sys.modules)\n" + script
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_an_agent_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        agent = runtime_client.Agent(str(tmp_path / "agent.sock"), patience=0.1)
        with agent, pytest.raises(UnreachableError, match=r"has said nothing for 0.1 s"):
            agent.status()


def test_an_agent_that_is_not_there_is_said_to_be_started(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"No such file.*systemctl start migrrdma-agent"):
        runtime_client.connect(str(tmp_path))
    assert not list(tmp_path.iterdir())
