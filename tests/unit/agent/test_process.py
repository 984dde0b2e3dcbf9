"""The agent as the process that systemd runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migrrdma_runtime.agent import certificates, client
from migrrdma_runtime.agent.guests import WIRE

PATIENT_S = 20


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What it takes to run an agent of this test's own."""
    certificates.make_ca(tmp_path / "ca", "test")
    certificates.issue(tmp_path / "ca", "me", ["127.0.0.2"], tmp_path / "tls")
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config.toml").write_text(f'run_dir = "{tmp_path}/run"\nguest_dir = "{tmp_path}/guest"\n')
    tls = "\n".join(
        f'{key} = "{tmp_path}/tls/{name}"'
        for key, name in (("ca", "ca.crt"), ("certificate", "agent.crt"), ("key", "agent.key"))
    )
    (tmp_path / "agent.toml").write_text(f'port = {port}\nstate_dir = "{tmp_path}/state"\n[tls]\n{tls}\n')
    return {
        **os.environ,
        "MIGRRDMA_CONFIG": str(tmp_path / "config.toml"),
        "MIGRRDMA_AGENT_CONFIG": str(tmp_path / "agent.toml"),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
    }


@contextmanager
def running(tmp_path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """``migrrdma agent run``, from the moment on that it tells systemd it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(PATIENT_S)
        Path(environment["NOTIFY_SOCKET"]).unlink(missing_ok=True)
        notified.bind(environment["NOTIFY_SOCKET"])
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "migrrdma_runtime", "agent", "run"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        try:
            assert notified.recv(100) == b"READY=1"
            yield process
        finally:
            process.kill()
            process.communicate()


def connect_guest(tmp_path: Path) -> socket.socket:
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guest.settimeout(PATIENT_S)
    guest.connect(str(tmp_path / "run/agent/guest.sock"))
    body = {"token": 0xABC, "pid": 1, "state": 1, "contexts": 1, "build_id": b"\1" * 20}
    guest.send(WIRE.pack("HELLO", body))
    assert WIRE.unpack(guest.recv(1000)).kind == "WELCOME"
    return guest


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # another process's state


def test_it_says_when_it_is_ready_and_ends_in_order(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(tmp_path, environment) as process:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENT_S)
    assert process.returncode == 0, log
    assert "INFO agent me listens on 127.0.0.2" in log


def test_a_killed_agents_place_is_taken_by_the_next(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(tmp_path, environment) as process:
        guest = connect_guest(tmp_path)
        process.kill()
        process.wait()
        assert guest.recv(1000) == b""
        guest.close()
    with running(tmp_path, environment), connect_guest(tmp_path):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "migrrdma_runtime", "status", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        [shown] = json.loads(done.stdout)["guests"]
        assert (shown["pid"], shown["process"]) == (os.getpid(), f"{0xABC:016x}")


def test_two_agents_on_one_address_are_one_too_many(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(tmp_path, environment):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "migrrdma_runtime", "agent", "run"],
            env={**environment, "NOTIFY_SOCKET": ""},
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 1
        assert "cannot listen on 127.0.0.2" in done.stderr
        assert "Traceback" not in done.stderr
        # And the first one is still there.
        with client.connect(str(tmp_path / "run")) as agent:
            assert agent.status()["agent"]["name"] == "me"


def test_without_a_certificate_it_says_how_to_get_one(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "tls/agent.crt").unlink()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "migrrdma_runtime", "agent", "run"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "agent.crt: No such file or directory; `migrrdma agent ca issue` makes" in done.stderr
