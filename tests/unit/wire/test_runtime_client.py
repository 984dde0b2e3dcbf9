"""The OCI runtime's end of the conversation with its agent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from migrrdma_runtime.base.errors import AgentError, MigrRDMAError, RestoreError, UnreachableError
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


def test_an_agent_that_is_alive_and_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says every three seconds that it is being started: nobody would see `migrrdma status` end."""
    monkeypatch.setattr(runtime_client, "STARTED_S", 0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        agent = runtime_client.Agent(str(tmp_path / "agent.sock"), patience=10)
        other_end, _ = listener.accept()
        with agent, other_end, pytest.raises(UnreachableError, match=r"within 0 s .*journalctl"):
            other_end.sendall(b'{"alive": true}\n' * 2)
            agent.status()


def test_an_agent_that_is_not_there_is_said_to_be_started(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"No such file.*systemctl start migrrdma-agent"):
        runtime_client.connect(str(tmp_path))
    assert not list(tmp_path.iterdir())


SILENT = None
"""An answer that never comes."""


@contextmanager
def answering(path: Path, *answers: Any) -> Iterator[list[Any]]:
    """An agent that answers one request on each connection; yields what it is asked."""
    asked: list[Any] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection, connection.makefile("rw") as stream:
                    asked.append(json.loads(stream.readline()))
                    if answer is not SILENT:
                        stream.write(json.dumps(answer) + "\n")
                        stream.flush()
                    stream.read()  # until the other end has had enough

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_an_agent_that_hangs_after_a_restore_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with answering(path, SILENT, SILENT, {"done": {"lost": []}}) as asked:
        with runtime_client.Agent(str(path), patience=0.2) as agent:
            assert agent.report_restored("m", steps=[]) == {"lost": []}
        assert [(one["op"], one["succeeded"]) for one in asked] == [("report", True)] * 3


def test_nobody_is_killed_for_an_agent_that_goes_on_hanging(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with (
        answering(path, SILENT, SILENT),
        runtime_client.Agent(str(path), patience=0.2) as agent,
        pytest.raises(UnreachableError) as caught,
    ):
        agent.report_restored("m", steps=[], patience=0.3)
    assert not caught.value.released


@pytest.mark.parametrize(("kind", "expected"), [("RestoreError", RestoreError), ("Exception", AgentError)])
@pytest.mark.parametrize("released", [True, False])
def test_an_answer_says_whether_what_was_restored_is_to_be_killed(
    tmp_path: Path, kind: str, expected: type[MigrRDMAError], released: bool
) -> None:
    path = tmp_path / "agent.sock"
    error = {"kind": kind, "message": "no", "released": released}
    with (
        answering(path, {"error": error}),
        runtime_client.Agent(str(path)) as agent,
        pytest.raises(expected) as caught,
    ):
        agent.report_restored("m", steps=[])
    assert (caught.value.answered, caught.value.released) == (True, released)
